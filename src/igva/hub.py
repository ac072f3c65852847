"""What goes to a hub, and the way there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, not in __all__

from igva.answering import load, resolve_model
from igva.errors import UserError, first_line
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model_card import model_card, read_known


def check_repo(repo: str) -> None:
    """Raise ``UserError`` where a text is no ``owner/name`` of a hub."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is no repository of a hub: {first_line(error)}") from error
    if repo.count("/") != 1:
        raise UserError(f"{repo!r} is no repository of a hub: name it as owner/name")


def save_for_hub(
    model: str,
    repo: str,
    folder: Path,
    *,
    run: Path | None = None,
    scores: Sequence[Path] = (),
    licence: str | None = None,
) -> None:
    """Write weights, processor, the code that loads both, and ``README.md``.

    Args:
        model: what ``igva.load`` takes; its weights stay in the type they are saved in.
        run: whose ``run.json`` the card tells; default: the model folder's, where it has one.
        scores: folders that ``igva eval`` wrote.

    Raises:
        UserError: no such model, run or scores.
    """
    source = Path(resolve_model(model))
    if run is None and (source / "run.json").is_file():
        run = source
    known = read_known(run, scores, licence)  # before the long work
    loaded, processor = load(model, "cpu", "auto")
    # From here on these classes are saved with their code.
    IgvaConfig.register_for_auto_class()
    IgvaForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
    IgvaProcessor.register_for_auto_class()
    loaded.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(model_card(loaded, repo, known))


def upload(repo: str, folder: Path, *, private: bool = False) -> str:
    """Upload a folder as a model; returns its address.

    Raises:
        UserError: nobody is logged in, the hub is out of reach, or it refuses.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload from igva")
    except LocalTokenNotFoundError as error:
        raise UserError("nobody is logged in to the hub: `hf auth login`, or set HF_TOKEN") from error
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{repo} could not be uploaded ({first_line(error)}): igva push … --into FOLDER keeps it"
        ) from error
    return str(url)
