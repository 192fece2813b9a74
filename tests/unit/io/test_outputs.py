"""Where results go: mirrored, named by a template, inside the folder, no two in one place, none over what is read."""

from dataclasses import replace
from pathlib import Path

import pytest

from brainseg_cli.errors import UsageError
from brainseg_cli.io.inputs import Input
from brainseg_cli.io.outputs import Claims, Guard, Naming, drop_suffix

OUT = Path("out")
SLICE = Input(Path("lgg/TCGA_1/TCGA_1_7.tif"), Path("TCGA_1/TCGA_1_7.tif"))
SCAN = Input(Path("scan.png"), Path("scan.png"))


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("{stem}", "TCGA_1/TCGA_1_7.png"),
        ("{stem}_mask", "TCGA_1/TCGA_1_7_mask.png"),
        ("{name}", "TCGA_1/TCGA_1_7.tif.png"),
        ("{slice_index:03d}", "TCGA_1/007.png"),
        ("{patient_id}/{slice_index}", "TCGA_1/7.png"),
        ("all/{stem}.seg", "all/TCGA_1_7.seg.png"),
        ("{{{stem}}}", "TCGA_1/{TCGA_1_7}.png"),
        ("mask", "TCGA_1/mask.png"),
        ("{stem!s:>12}", "TCGA_1/    TCGA_1_7.png"),
    ],
)
def test_a_template_names_the_result(template: str, place: str) -> None:
    assert Naming(OUT, ".png", template).place(SLICE) == OUT / place


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{stem.__class__}", r"there is no \{stem.__class__\} .*\{patient_id\}"),
        ("{stem[0]}", "there is no"),
        ("{patient}", "there is no"),
        ("{}", "there is no"),
        ("{0}", "there is no"),
        ("{stem", "cannot be filled in"),
        ("{stem:03d}", "cannot be filled in"),
        ("{stem:{x}}", "cannot be filled in"),
        ("{stem!q}", "cannot be filled in"),
        ("{stem:{stem.__class__}}", "cannot be filled in"),
    ],
)
def test_a_template_that_is_none_is_refused_at_once(template: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Naming(OUT, ".png", template)


@pytest.mark.parametrize("template", ["../{stem}", "a/../{stem}", "/etc/{stem}", "a/../../{stem}", "..//{stem}"])
def test_a_template_cannot_leave_the_folder(template: str) -> None:
    with pytest.raises(UsageError, match="would leave the folder"):
        Naming(OUT, ".png", template).place(SLICE)


@pytest.mark.parametrize("template", ["", "{stem}/", "/"])
def test_a_template_must_name_a_file(template: str) -> None:
    with pytest.raises(UsageError, match="leaves nothing of the name"):
        Naming(OUT, ".png", template).place(SLICE)


def test_what_an_input_has_not_cannot_be_asked_for() -> None:
    for template in ("{patient_id}", "{slice_index}", "{stem:{slice_index}}"):
        with pytest.raises(UsageError, match=r"scan\.png: has no|cannot be filled in"):
            Naming(OUT, ".png", template).place(SCAN)
    assert Naming(OUT, ".tif").place(SCAN) == OUT / "scan.tif"
    assert Naming(OUT, ".tif").place(Input(Path("a.b_1.png"), Path("a.b_1.png"))) == OUT / "a.b_1.tif"


def test_two_for_one_place_are_named() -> None:
    other = Input(Path("scan.tif"), Path("scan.tif"))
    claims = Claims()
    claims.claim(Naming(OUT, ".png").place(SCAN), SCAN)
    with pytest.raises(UsageError, match=r"scan\.png and scan\.tif would both be written to out/scan\.png .*--name"):
        claims.claim(Naming(OUT, ".png").place(other), other)
    assert Naming(OUT, ".png", "{name}").place(other) == OUT / "scan.tif.png"
    claims.claim(OUT / "a.png", SCAN)
    claims.claim(OUT / "a.png", SCAN)  # its own
    with pytest.raises(UsageError):
        claims.claim(OUT / "a.png", other)


def test_nothing_is_written_over_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    for name in ("c.png", "d.png", "ring.png"):
        (tmp_path / name).symlink_to({"c.png": "d.png", "d.png": "link/../in/a.png"}.get(name, name))
    read = tmp_path / "in" / "a.png"
    others = [tmp_path / name for name in ("link/a.png", "in/../in/a.png", "link/../in/a.png", "c.png", "d.png")]
    for target in (read, *others):
        for first, second in ((read, target), (target, read)):
            guard = Guard()
            guard.read(first)
            with pytest.raises(UsageError, match=r"\.png: would be written over, and is to be read"):
                guard.write([tmp_path / "b.png", second])
            guard.read(tmp_path / "b.png")  # nothing of that was to be written then
            guard = Guard()
            guard.write([tmp_path / "b.png", first])
            with pytest.raises(UsageError, match=r"\.png: would be written over, and is to be read"):
                guard.read(second)
    guard = Guard()
    guard.read(read)
    guard.read(tmp_path / "ring.png")
    guard.write([tmp_path / "in" / "b.png", tmp_path / ("n" * 300)])


def test_a_template_may_say_what_results_end_in_anyhow() -> None:
    assert drop_suffix("{stem}_mask.png", ".png") == "{stem}_mask" and drop_suffix("{stem}.TIFF", ".tif") == "{stem}"
    for template in ("{stem}", "{stem}_v1.2", "{name}", "{slice_index:03d}", "a.b/{stem}"):
        assert drop_suffix(template, ".png") == template
    with pytest.raises(UsageError, match=r"results end in \.png .*--format"):
        drop_suffix("{stem}.tif", ".png")


@pytest.mark.parametrize("template", ["{stem:>9999}", "{slice_index:9999d}", "{stem:>99999999999999999999}"])
def test_a_name_without_end_is_refused(template: str, tmp_path: Path) -> None:
    naming = Naming(tmp_path, ".png", "{stem}")
    with pytest.raises(UsageError, match=r"gives a name of|cannot be filled in"):
        replace(naming, template=template).place(Input(Path("p_7.tif"), Path("p_7.tif")))


def test_a_link_in_the_folder_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "inner").mkdir()
    (tmp_path / "out" / "p").symlink_to(tmp_path)
    (tmp_path / "out" / "q").symlink_to(tmp_path / "out" / "inner")
    (tmp_path / "linked").symlink_to(tmp_path / "out")
    for folder in (tmp_path / "out", tmp_path / "linked"):
        naming = Naming(folder, ".png")
        assert naming.place(Input(Path("q/7.tif"), Path("q/7.tif"))) == folder / "q" / "7.png"
        with pytest.raises(UsageError, match="a link leads out of"):
            naming.place(Input(Path("p/7.tif"), Path("p/7.tif")))
