"""report.html in a real browser: it sorts, filters, opens slices, keeps to the page's width, and asks for nothing.

That the console stays silent and nothing is requested is checked after every test, by `open_report`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from report_sample import PATIENTS, build_comparison, build_sample

Open = Callable[..., Any]
HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "a & 'b' \"c\" \u2028 d", "last")


def column(page: Any, table: str, name: str) -> list[str]:
    """The texts of a column as they stand."""
    heads = page.locator(f"#{table} thead th").all_inner_texts()
    at = [head.split()[0] for head in heads].index(name)
    return page.eval_on_selector_all(f"#{table} tbody tr", f"rows => rows.map(row => row.cells[{at}].textContent)")


def sort_by(page: Any, table: str, name: str) -> str | None:
    """Click a header; what it says of the order then."""
    head = page.locator(f"#{table} thead th").filter(has=page.get_by_role("button", name=name, exact=True))
    head.get_by_role("button").click()
    return head.get_attribute("aria-sort")


def numbers(texts: list[str]) -> list[float]:
    return [float(text) for text in texts if text != "–"]


def contrast(page: Any, selector: str) -> float:
    """WCAG's contrast of an element's text on what lies behind it."""
    return page.eval_on_selector(
        selector,
        """element => {
          const light = (colour) => {
            const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
              const share = Number(part) / 255;
              return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          let behind = element;
          while (/^rgba.*, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
          const both = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(light);
          return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        }""",
    )


def test_the_numbers_are_those_of_the_summary(open_report: Open) -> None:
    one = open_report()
    shown = one.page.eval_on_selector_all("[data-metric]", "cells => cells.map(cell => ({...cell.dataset}))")
    metrics = one.sample.summary["metrics"]
    assert {cell["metric"] for cell in shown} == set(metrics)
    for cell in shown:
        assert (float(cell["value"]) if cell["value"] else None) == metrics[cell["metric"]]
    headline = one.page.locator(".headline .value")
    assert headline.get_attribute("data-metric") == "dice_patient"
    assert headline.inner_text() == f"{metrics['dice_patient']:.3f}"


def test_a_header_sorts_both_ways_with_the_undefined_last(open_report: Open) -> None:
    page = open_report().page
    assert sort_by(page, "patients", "dice") == "ascending"
    assert column(page, "patients", "patient_id") == [PATIENTS[-1], *PATIENTS[:-1]]  # four alike keep their order
    assert sort_by(page, "patients", "hd95_px") == "ascending"
    rising = column(page, "patients", "hd95_px")
    assert numbers(rising) == sorted(numbers(rising))
    assert len(numbers(rising)) == 4
    assert sort_by(page, "patients", "hd95_px") == "descending"
    falling = column(page, "patients", "hd95_px")
    assert falling == [*reversed(rising[:-1]), "–"]
    assert page.locator("#patients th[aria-sort=descending]").count() == 1
    page.fill("#slices input", "p_11")
    for _ in range(2):
        sort_by(page, "slices", "dice")
        dice = column(page, "slices", "dice")
        assert len(dice) == 27
        assert set(dice[: len(numbers(dice))]) & {"–"} == set() != set(dice[len(numbers(dice)) :])
    assert numbers(dice) == sorted(numbers(dice), reverse=True)


def test_names_sort_as_people_count(open_report: Open) -> None:
    page = open_report().page
    sort_by(page, "slices", "patient_id")
    sort_by(page, "slices", "image")
    assert column(page, "slices", "image")[:3] == ["P_1_1", "P_1_2", "P_1_3"]
    sort_by(page, "patients", "patient_id")
    assert column(page, "patients", "patient_id") == ["P_1", "P_2", "P_10", "P_11", "without_tumour"]


def test_filters_narrow_the_slices(open_report: Open) -> None:
    one = open_report()
    page, slices = one.page, one.sample.slices
    tally = page.locator("#slices .tally")
    assert tally.inner_text() == "135 of 135 slices, the first 100 shown"
    page.fill("#slices input", "p_10")
    assert tally.inner_text() == "27 of 135 slices"
    assert set(column(page, "slices", "patient_id")) == {"P_10"}
    page.click("#slices [data-keep=missed]")
    assert tally.inner_text() == "1 of 135 slices"
    assert column(page, "slices", "image") == ["P_10_26"]
    page.fill("#slices input", "")
    page.click("#slices [data-keep=false]")
    assert page.locator("#slices [data-keep=false]").get_attribute("aria-pressed") == "true"
    assert page.locator("#slices [aria-pressed=true]").count() == 1
    alarms = slices[(slices["tp"] + slices["fn"] == 0) & (slices["fp"] > 0)]
    assert 0 < len(alarms) == len(column(page, "slices", "image"))
    page.click("#slices [data-keep=tumour]")
    assert tally.inner_text() == f"{(slices['tp'] + slices['fn'] > 0).sum()} of 135 slices"
    page.fill("#slices input", "no such patient")
    assert tally.inner_text() == "0 of 135 slices"
    assert column(page, "slices", "image") == []


def test_more_slices_are_shown_when_asked_for(open_report: Open) -> None:
    page = open_report().page
    assert page.locator("#slices tbody tr").count() == 100
    more = page.get_by_role("button", name="show 35 more")
    more.click()
    assert page.locator("#slices tbody tr").count() == 135
    assert page.locator("#slices .more").is_hidden()
    assert page.locator("#slices .tally").inner_text() == "135 of 135 slices"
    assert page.locator("#patients .more").is_hidden()


def test_a_slice_opens_large_and_the_keyboard_leafs_through(open_report: Open) -> None:
    one = open_report()
    page, pictures = one.page, one.sample.pictures
    dialog, title = page.locator("dialog"), page.locator("#opened")
    assert dialog.is_hidden()
    page.locator(".open").nth(2).focus()
    page.keyboard.press("Enter")
    assert dialog.is_visible()
    shown = pictures[2]
    assert title.inner_text().startswith(f"{shown.patient_id}, slice {shown.slice_index}, ")
    assert title.inner_text().endswith(f"(3 of {len(pictures)})")
    small = page.locator(".open svg").nth(2).inner_html()
    assert page.locator(".stage svg").inner_html() == small
    large, thumb = page.locator(".stage svg").bounding_box(), page.locator(".open svg").nth(2).bounding_box()
    assert large["width"] > 2 * thumb["width"]
    page.keyboard.press("ArrowRight")
    assert title.inner_text().endswith(f"(4 of {len(pictures)})")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert title.inner_text().endswith(f"({len(pictures)} of {len(pictures)})")
    page.get_by_role("button", name="Next slice").click()
    assert title.inner_text().endswith(f"(1 of {len(pictures)})")
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert page.evaluate("document.activeElement.className") == "open"


def test_views_switch_the_layers_everywhere(open_report: Open) -> None:
    page = open_report().page
    page.locator(".open").first.click()
    parts = (".reference.line", ".prediction.line", ".errors")
    views = {
        "both": {".reference.line", ".prediction.line"},
        "reference": {".reference.line"},
        "prediction": {".prediction.line"},
        "errors": {".errors"},
        "slice": set(),
    }
    best = page.locator("figure[data-picture]").last.locator("svg")
    page.keyboard.press("ArrowLeft")
    for view, wanted in views.items():
        page.click(f"dialog [data-view={view}]")
        for place in (page.locator(".stage svg"), best):
            shown = {
                part for part in parts if place.locator(part).evaluate("e => getComputedStyle(e).display") != "none"
            }
            assert shown == wanted
        assert page.locator("#gallery button[aria-pressed=true]").count() == 2  # the bar of the page and the dialog's
    page.click("dialog .close")
    page.click("#gallery > .viewbar [data-view=errors]")
    told = page.locator("#gallery > .viewbar .legend li:visible").all_inner_texts()
    assert told == ["hit", "missed", "false alarm"]


def test_a_row_opens_its_slice(open_report: Open) -> None:
    one = open_report()
    shown = one.sample.pictures[0]
    one.page.fill("#slices input", shown.image)
    one.page.locator("#slices tbody").get_by_role("button", name=shown.image.split("/")[1], exact=True).click()
    assert one.page.locator("#opened").inner_text().endswith(f"(1 of {len(one.sample.pictures)})")
    assert shown.patient_id in one.page.locator("#opened").inner_text()


def test_hostile_names_stay_text(open_report: Open) -> None:
    comparison = build_comparison(HOSTILE) | {"a": HOSTILE[0], "b": HOSTILE[1]}
    hostile = {"run": HOSTILE[1], "notes": [HOSTILE[0]], "configuration": {HOSTILE[0]: {HOSTILE[1]: HOSTILE[0]}}}
    unmatched = {"references": [HOSTILE[0]], "predictions": [HOSTILE[1]]}
    one = open_report(build_sample(HOSTILE, comparison=comparison, unmatched=unmatched, **hostile))
    page = one.page
    assert page.locator("h1").inner_text() == HOSTILE[1]
    assert column(page, "patients", "patient_id") == [*HOSTILE]
    page.fill("#slices input", HOSTILE[0])
    assert page.locator("#slices .tally").inner_text() == "27 of 108 slices"
    page.locator(".open").first.click()
    assert any(name in page.locator("#opened").inner_text() for name in HOSTILE)
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3  # two tables and the page's own


def test_the_page_runs_no_script_but_its_own(open_report: Open) -> None:
    one = open_report()
    ran = one.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          return window.ran === true;
        }"""
    )
    assert not ran
    assert len(one.console) == 1
    assert "Content Security Policy" in one.console.pop()


@pytest.mark.parametrize("folders", [False, True])
def test_a_phone_needs_no_scrolling_sideways(open_report: Open, folders: bool) -> None:
    sample = build_sample(comparison=build_comparison(), notes=["a note"])
    if folders:
        gone = {"run", "epoch", "dataset_hash"}
        kept = {key: value for key, value in sample.summary.items() if key not in gone}
        parts = {"reference": "a-very-long-name" * 9, "prediction": "b", "calibration": None, "threshold_sweep": None}
        sample.summary.clear()
        sample.summary.update(kept | parts | {"configuration": None, "at_half": None})
    page = open_report(sample, viewport={"width": 380, "height": 800}, has_touch=True, is_mobile=True).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.evaluate("document.querySelector('#slices .box').scrollWidth") > 380  # the table scrolls in its box
    page.locator(".open").first.click()
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 380


def test_dark_and_light_both_have_contrast(open_report: Open) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page = open_report(build_sample(leaky=True, notes=["a note"]), color_scheme=scheme).page
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for selector in (
            "h1",
            ".where",
            ".leaky",
            ".notes",
            ".headline dt",
            ".metrics td.definition",
            ".tally",
            "nav a",
        ):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        assert contrast(page, "#slices [aria-pressed=true]") >= 4.5, scheme
        assert contrast(page, "#slices [aria-pressed=false]") >= 4.5, scheme
    assert len(grounds) == 2


def test_on_paper_there_are_no_controls_and_it_is_light(open_report: Open) -> None:
    page = open_report(color_scheme="dark").page
    controls = "nav, .controls, .views, .more"
    visible = "elements => elements.filter(e => e.getClientRects().length).length"
    assert page.eval_on_selector_all(controls, visible) == 5
    page.emulate_media(media="print", color_scheme="dark")
    assert page.eval_on_selector_all(controls, visible) == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".headline").is_visible()
    assert page.locator("#slices tbody tr").count() == 100


def test_a_leaky_split_cannot_be_overlooked(open_report: Open) -> None:
    page = open_report(build_sample(leaky=True)).page
    assert "LEAKY" in page.title()
    box = page.get_by_role("alert").bounding_box()
    assert box["y"] + box["height"] < 900  # in the first screen
    assert open_report().page.get_by_role("alert").count() == 0


def test_a_report_without_pictures_works(open_report: Open) -> None:
    sample = build_sample()
    sample.pictures.clear()
    page = open_report(sample).page
    assert "no picture" in page.locator("#gallery").inner_text()
    sort_by(page, "slices", "dice")
    assert page.locator("#slices tbody tr").count() == 100
