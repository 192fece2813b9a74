"""report.html as text: its numbers, its policy, its sections, and names that try to be something else."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from report_sample import PATIENTS, Sample, build_comparison, build_sample

from brainseg_cli.report.html import render_html
from brainseg_cli.report.pictures import Picture

HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "\u2028 & '\"", "last")


class Page(HTMLParser):
    """What a page consists of: its elements, its text, and the content of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.raw = "", list[tuple[str, str]]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            self.raw.append((self.cdata_elem, data))
        else:
            self.text += " ".join(data.split()) + " "


def render(sample: Sample) -> Page:
    return Page(render_html(sample.summary, sample.slices, sample.patients, sample.pictures))


def make_folders(sample: Sample) -> Sample:
    """The same, as two folders of masks have it."""
    for key in ("run", "epoch", "dataset_hash", "split_name", "split_hash", "torch_version", "device"):
        del sample.summary[key]
    absent = dict.fromkeys(("split", "threshold", "threshold_from", "calibration", "threshold_sweep", "at_half"))
    sample.summary.update(absent | {"configuration": None, "reference": "/d/manual", "prediction": "/d/unet"})
    return sample


def test_each_metric_is_there_with_its_whole_number() -> None:
    sample = build_sample()
    page = render(sample)
    shown = [(cell["data-metric"], cell["data-value"]) for _, cell in page.elements if "data-metric" in cell]
    assert sorted({name for name, _ in shown}) == sorted(sample.summary["metrics"])
    for name, value in shown:
        assert value == ("" if sample.summary["metrics"][name] is None else repr(sample.summary["metrics"][name]))
    for definition in sample.summary["definitions"].values():
        assert definition in page.text


def test_the_page_brings_everything_and_allows_nothing_else() -> None:
    page = render(build_sample(comparison=build_comparison()))
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert name not in ("src", "style", "srcset", "action") and not name.startswith("on"), (tag, name)
            if name == "href":
                assert str(value).startswith(("#", "data:")), (tag, value)
    (policy,) = [at["content"] for _, at in page.elements if at.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in str(policy)
    own = [(tag, text) for tag, text in page.raw if not text.startswith("{")]
    assert [tag for tag, _ in own] == ["style", "script"]
    for _, text in own:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in str(policy)
        assert not re.search(r"https?:|url\(|@import|innerHTML|eval\(", text)


def test_tables_hold_every_row() -> None:
    sample = build_sample()
    slices, patients = sorted(
        (json.loads(text)["rows"] for tag, text in render(sample).raw if tag == "script" and text.startswith("{")),
        key=len,
        reverse=True,
    )
    assert len(slices) == len(sample.slices)
    assert [row[0] for row in patients] == [*PATIENTS]


def test_hostile_names_stay_text() -> None:
    comparison = build_comparison(HOSTILE) | {"a": HOSTILE[0], "b": HOSTILE[1]}
    hostile = {"run": HOSTILE[1], "notes": [HOSTILE[0]], "configuration": {HOSTILE[0]: {HOSTILE[1]: HOSTILE[0]}}}
    page = render(build_sample(HOSTILE, comparison=comparison, unmatched={"references": [HOSTILE[0]]}, **hostile))
    tags = [tag for tag, _ in page.elements]
    assert "img" not in tags
    assert tags.count("script") == 3
    assert HOSTILE[0] in page.text
    slices = next(text for tag, text in page.raw if tag == "script" and '"image"' in text)
    assert {row[0] for row in json.loads(slices)["rows"]} == set(HOSTILE)


def test_a_name_that_is_no_text_loses_the_character() -> None:
    sample = build_sample(("a\udc80b", "last"), run="x\udc80")
    text = render_html(sample.summary, sample.slices, sample.patients, sample.pictures)
    assert "a?b" in text
    text.encode()


def test_leaky_is_said_only_where_it_is() -> None:
    assert "LEAKY" not in render(build_sample()).text
    assert "LEAKY" in render(build_sample(leaky=True)).text
    assert "LEAKY" in render(build_sample(comparison=build_comparison() | {"leaky": True})).text


def test_two_folders_say_why_parts_are_absent() -> None:
    text = render(make_folders(build_sample())).text
    assert text.strip().startswith("unet against manual – brainseg ")
    assert "Two folders of masks hold no probabilities" in text
    assert "two folders of masks have none" in text
    assert "Two folders of masks have no configuration" in text
    assert "at 0.5" not in text


def test_a_run_without_thresholds_or_slices_says_so() -> None:
    sample = build_sample(threshold_sweep=None, calibration=None)
    sample.pictures.clear()
    text = render(sample).text
    assert "The run holds no table of thresholds" in text
    assert "There are no probabilities to calibrate" in text
    assert "There is no picture" in text


def test_gates_subgroups_comparison_and_origin_are_told() -> None:
    gates = [
        {"metric": "dice_patient", "bound": "under", "limit": 0.9, "value": 0.7, "met": False},
        {"metric": "hd95_px", "bound": "over", "limit": 200.0, "value": 123.456789, "met": True},
    ]
    unmatched = {"references": [f"r{at}" for at in range(60)], "predictions": []}
    page = render(build_sample(gates=gates, comparison=build_comparison(), unmatched=unmatched, notes=["be careful"]))
    for told in (
        *("gate not met: dice_patient 0.7000 is under 0.90", "gate met: hd95_px", "be careful", "By institution"),
        *("0.600 to 0.950", "unet-b", "−0.012 to +0.071", "0.219", "f51b70af48ee7153", "resnet18", "64, 32"),
        *("60 without a counterpart", "and 10 more", "not a medical device", "123.5", "0.000712", "chosen on val"),
    ):
        assert told in page.text, told
    assert "By tumour size" not in page.text
    assert "unet-b" not in render(build_sample()).text


def test_pictures_stay_small(rng: np.random.Generator) -> None:
    sample = build_sample()
    rows, columns = np.mgrid[:256, :256]
    brain = 120 + 60 * np.sin(rows / 9) * np.cos(columns / 11) + rng.normal(0, 6, (256, 256))
    image = np.stack([np.clip(brain + shift, 0, 255) for shift in (0, 20, -20)], axis=-1).astype(np.uint8)
    disc = ((rows - 128) ** 2 + (columns - 100) ** 2 < 1600).astype(np.uint8)
    shown = Picture("worst", "a", "P_1", None, None, image, disc, np.roll(disc, 7, axis=1))
    text = render_html(sample.summary, sample.slices, sample.patients, [shown] * 24)
    assert len(text.encode()) < 2_500_000


def test_a_summary_that_lacks_a_part_is_refused() -> None:
    sample = build_sample()
    del sample.summary["lesions"]
    with pytest.raises(KeyError, match="lesions"):
        render(sample)
