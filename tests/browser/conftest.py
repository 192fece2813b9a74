"""A real browser: the one that BRAINSEG_BROWSER names, else a Chromium found on the path; without one, skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from report_sample import Sample, build_sample

from brainseg_cli.report.html import render_html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class Opened:
    """A page, and what went on in it that should not have."""

    page: "Page"
    sample: Sample
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One browser for all tests here, gone before others start."""
    named = os.environ.get("BRAINSEG_BROWSER")
    path = named or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium on the path; BRAINSEG_BROWSER says where one is")
    if named and not shutil.which(named):
        pytest.fail(f"BRAINSEG_BROWSER names {named}, and it is not there")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def open_report(browser: "Browser", tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """`open_report(sample, color_scheme="dark")`: the sample's report, opened; it must load and run without a word.

    After the test, whatever it did, the page has said nothing on its console, raised nothing and asked for nothing.
    """
    opened: list[Opened] = []

    def open_one(sample: Sample | None = None, **context: Any) -> Opened:
        sample = sample or build_sample()
        path = tmp_path / f"report-{len(opened)}.html"
        text = render_html(sample.summary, sample.slices, sample.patients, sample.pictures)
        path.write_text(text, encoding="utf-8", newline="")
        page = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context)).new_page()
        page.set_default_timeout(5000)
        one = Opened(page, sample)
        page.on("console", lambda message: one.console.append(message.text))
        page.on("pageerror", lambda error: one.errors.append(str(error)))
        page.on("request", lambda request: one.requests.append(request.url))
        page.goto(path.as_uri())
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        one.page.context.close()
        assert (one.console, one.errors) == ([], [])
        assert [url for url in one.requests if not url.startswith("data:")] == [one.requests[0]]
        assert one.requests[0].startswith("file:")
