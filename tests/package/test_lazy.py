"""What a bare `import jrnn` provides, and the errors for missing libraries."""

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jrnn
import jrnn.interop

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A name of jrnn in code or prose, no file, address or module of a command line.
NAME = re.compile(
    r"(?<![\w./-])(?<!-m )jrnn((?:\.[A-Za-z]\w*)+)(?![\w/]|\.(?:py|md|git))"
)

# Every name, in one process that has imported nothing else.
BARE = """
import json, sys
names = json.load(sys.stdin)
import jrnn
libraries = {"equinox", "flax", "optax", "orbax", "safetensors", "torch"}
early = sorted(libraries & {name.split(".")[0] for name in sys.modules})
shown = dir(jrnn)
missing = []
for name in names:
    thing = jrnn
    try:
        for part in name.split("."):
            thing = getattr(thing, part)
    except AttributeError as error:
        missing.append(str(error))
print(json.dumps([early, shown, missing]))
"""

REFUSED = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("equinox", "flax", "optax", "orbax"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import jrnn
print("train" in dir(jrnn))
flax = "jrnn.interop.flax"
for use in ("jrnn.train", "jrnn.train", f"{flax}.nnx.RNN", f"{flax}.linen.RNN",
            "jrnn.interop.equinox.RNN"):
    try:
        eval(use)
    except ModuleNotFoundError as error:
        print(error)
"""


def python(code, given=""):
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command,
        cwd=ROOT,
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def documented():
    """The names that README and docs write."""
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    return sorted({found[1:] for text in texts for found in NAME.findall(text)})


@pytest.mark.longer
def test_what_the_documents_name_is_there_after_a_bare_import():
    names = [*documented(), "train.make_train_step", "interop.torch.from_arrays"]
    assert len(names) > 25
    assert {"train", "train.windows", "interop.torch.from_torch"} <= set(names)
    early, shown, missing = json.loads(python(BARE, json.dumps(names)))
    assert missing == []
    assert early == []
    assert {"train", "interop", "unroll"} <= set(shown)


def test_a_library_that_is_missing_is_told_with_the_command():
    listed, *told = python(REFUSED).splitlines()
    assert listed == "True"
    assert len(told) == 5
    for line in told[:2]:
        assert "jrnn.train needs o" in line
        assert re.search(r"Run: pip install (optax|orbax-checkpoint)$", line)
    for line, name in zip(told[2:], ("flax.nnx", "flax.linen", "equinox"), strict=True):
        library = name.split(".")[0]
        assert f"jrnn.interop.{name} needs {library}, and {library} is not" in line
        assert line.endswith(f"Run: pip install {library}")


def test_every_submodule_is_shown_and_no_other_name_is_made_up():
    for package in (jrnn, jrnn.interop):
        own = [m.name for m in pkgutil.iter_modules(package.__path__)]
        public = {name for name in own if not name.startswith("_")}
        assert public - {"cells", "heads", "kernels", "methods"} <= set(dir(package))
        with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attr"):
            package.no_such_name  # noqa: B018 the access itself is tested
