"""What goes to a hub, and the way there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, not in __all__

from igva.answering import load, resolve_model
from igva.errors import UserError, first_line
from igva.eval.run import fingerprint
from igva.files import write_errors
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model_card import Known, model_card, read_known


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
    base_models: Sequence[str] = (),
) -> None:
    """Write weights, processor, the code that loads both, and ``README.md``.

    Args:
        model: what ``igva.load`` takes; its weights stay in the type they are saved in.
        run: whose ``run.json`` the card tells; default: the model folder's, where it has one.
        scores: folders that ``igva eval`` wrote.
        licence, base_models: as the hub calls them.

    Raises:
        UserError: no such model, run or scores, or scores of other weights.
    """
    source = Path(resolve_model(model))
    if run is None and (source / "run.json").is_file():
        run = source
    known = read_known(run, scores, licence, base_models)  # before the long work
    loaded, processor = load(model, "cpu", "auto", to_answer=False)
    _check_scores(known, loaded)
    # From here on these classes are saved with their code.
    IgvaConfig.register_for_auto_class()
    IgvaForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
    IgvaProcessor.register_for_auto_class()
    with write_errors(folder):
        loaded.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(model_card(loaded, repo, known))


def _check_scores(known: Known, model: IgvaForConditionalGeneration) -> None:
    """Raise ``UserError`` where scores are those of other weights; in another type that cannot be told."""
    own, dtype = fingerprint(model), str(model.dtype).removeprefix("torch.")
    for name, found in (known.scores or {}).items():
        settings = found.get("settings", {})
        if settings.get("dtype") == dtype and settings.get("fingerprint") not in (None, own):
            raise UserError(
                f"{name} are scores of {settings.get('checkpoint')}, which is another model: leave them out"
            )


def check_login() -> None:
    """Raise ``UserError`` where nobody is logged in to the hub."""
    if get_token() is None:
        raise UserError("nobody is logged in to the hub: `hf auth login`, or set HF_TOKEN")


def upload(repo: str, folder: Path, *, private: bool = False) -> str:
    """Upload a folder as a model; returns its address.

    Raises:
        UserError: the hub is out of reach, or refuses; or the repository is there, and public though ``private`` is
            asked for.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        public = private and not api.repo_info(repo).private
        if not public:
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload from igva")
    except Exception as error:  # the client's own, those of the connection below it, and what it finds in the card
        raise UserError(f"{repo} could not be uploaded ({first_line(error)}): --into FOLDER keeps it here") from error
    if public:
        raise UserError(f"{repo} is there already and public: make it private on the hub, or name another")
    return str(url)
