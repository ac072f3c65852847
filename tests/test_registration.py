"""``import igva`` costs next to nothing, and transformers knows the model whichever comes first."""

import subprocess
import sys

import pytest

KNOWN = """
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoProcessor
assert CONFIG_MAPPING["igva"].__module__ == "igva.model.configuration_igva"
assert CONFIG_MAPPING["igva"] in AutoModelForImageTextToText._model_mapping
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "first",
    [
        "import igva",
        "import transformers, igva",
        "from igva.model.modeling_igva import IgvaModel",
        "from igva.registration import register; register(); register()",
        "import igva, importlib, transformers; importlib.reload(transformers)",
        "import igva, importlib.util; assert importlib.util.find_spec('transformers')",
    ],
)
def test_transformers_knows_the_model(first):
    run(first + "\n" + KNOWN)


def test_importing_igva_loads_nothing_heavy():
    run("import sys, igva; assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)")


def test_the_module_is_what_it_would_be_without_igva():
    told = "print(transformers.__loader__, transformers.__spec__.loader, transformers.__file__)"
    alike = [
        [part for part in run(f"{first}import transformers\n{told}").stdout.split() if "0x" not in part]
        for first in ("", "import igva; ")
    ]
    assert alike[0] == alike[1]


def test_as_a_module_it_shows_its_help_quickly():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "igva", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("usage: igva") and "transformers" not in done.stderr and " torch\n" not in done.stderr
