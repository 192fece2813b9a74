"""No file that is read can run code: what could is not in the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "brainseg_cli"
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "ruamel", "code", "pty"}
CALLS = {
    "eval", "exec", "__import__", "os.system", "os.popen", "os.execv", "os.execvp", "subprocess.getoutput",
    "pd.eval", "pd.read_pickle", "np.loadtxt", "torch.hub.load", "torch.package",
}  # fmt: skip
OUR_OWN = {("models/export.py", "torch.jit.load"), ("models/export.py", "torch.export.load")}
"""What export reads back: the file that it has written a moment before."""


def find_faults(source: str, name: str) -> Iterator[str]:
    """A line for each thing in a module that could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {module}" for module in imported if module.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {option.arg: ast.unparse(option.value) for option in node.keywords}
        if called in CALLS:
            yield f"calls {called}"
        if called == "torch.load" and options.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if called in ("torch.jit.load", "torch.export.load") and (name, called) not in OUR_OWN:
            yield f"calls {called}"
        if called in ("np.load", "numpy.load", "np.lib.format.read_array") and options.get("allow_pickle") != "False":
            yield f"{called} without allow_pickle=False"
        if options.get("shell", "False") != "False":
            yield "a shell"


def test_nothing_in_the_package_runs_what_a_file_says() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    told = []
    for file in files:
        name = file.relative_to(PACKAGE).as_posix()
        told += [f"{name}: {fault}" for fault in find_faults(file.read_text(encoding="utf-8"), name)]
    assert told == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "os.system(name)",
        "subprocess.run(line, shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.jit.load(path)",
    ],
)
def test_what_would_is_found(source: str) -> None:
    assert len(list(find_faults(source, "x.py"))) == 1
