"""The page at / in a real browser, over a real service."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, Page, Route, expect

from schemas.image import encode_png
from tests.support.browser import chromium, needs_chromium, opened, overflow, serious_findings, take_screenshot
from tests.support.bundles import COLOURS, solid, write_bundle, write_solid
from tests.support.service_process import Service, serving_bundles, until
from tests.support.zip_files import zipped
from trainer.data.dataset import LabelledImages
from trainer.data.digits import DigitsSource
from trainer.data.split import split
from trainer.recipe import Recipe

pytestmark = needs_chromium

ADMIN_KEY = "admin-key-of-the-tests"
HOSTILE_CARD = """\
# A card

<img src=x onerror="document.title = 'attacked'"> and [a link](javascript:alert(1)),
[another](https://elsewhere.example/) and ![a picture](https://elsewhere.example/pixel.png)

| column |
|---|
| <script>document.title = "attacked"</script> |
"""
TABS = ("Predict", "Evaluate", "Models", "Live")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def models(artifacts: Path) -> Path:
    """digits; colours, whose version 1 is always wrong; a model with heat maps; and a damaged bundle."""
    write_bundle(artifacts, version=1, scale=-20)
    second = write_bundle(artifacts, version=2)
    (second / "README.md").write_text(HOSTILE_CARD)
    write_bundle(artifacts, name="explaining", with_maps=True)
    damaged = write_bundle(artifacts, name="damaged")
    (damaged / "model.onnx").write_bytes(b"not the model")
    return artifacts


@pytest.fixture(scope="module")
def site(models: Path) -> Iterator[Service]:
    with serving_bundles(models, CONVOY_VERSIONS="all", CONVOY_WORKERS="1") as running:
        yield running


@pytest.fixture
def page(browser: Browser, site: Service) -> Iterator[Page]:
    with opened(browser, site.url) as visited:
        expect(visited.locator("#predict-model")).to_have_value("colours")
        yield visited


@pytest.fixture(scope="module")
def digits(models: Path) -> LabelledImages:
    """The test split of digits."""
    manifest = json.loads((models / "digits" / "1" / "manifest.json").read_text())
    return split(DigitsSource().load(), Recipe.model_validate(manifest["provenance"]["recipe"]).data).test


def picture(colour: str) -> FilePayload:
    return {"name": f"{colour}.png", "mimeType": "image/png", "buffer": solid(colour, (64, 48))}


def upload(page: Page, *files: FilePayload, before: int = 0) -> Locator:
    """Returns the cards of the answers, once all are complete; before is the number of earlier ones."""
    page.locator("#files").set_input_files(files)
    expect(page.locator("#cards .answer h3")).to_have_count(before + len(files))
    return page.locator("#cards .card")


def draw(page: Page, *points: tuple[float, float]) -> None:
    """Draws one stroke through points, which are fractions of the canvas."""
    box = page.locator("#canvas").bounding_box()
    assert box
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
        page.mouse.move(*point)
    page.mouse.up()


def drop(page: Page, zone: str, *paths: Path) -> None:
    """Drops files or folders of this machine, as from a file manager."""
    browser = page.context.new_cdp_session(page)
    box = page.locator(zone).bounding_box()
    assert box
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """A folder of each colour with an image, and a hidden folder."""
    for name in (*COLOURS, ".cache"):
        write_solid(tmp_path / "data" / name / "1.png", name if name in COLOURS else "red")
    return tmp_path / "data"


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def downloaded(page: Page, button: Locator) -> bytes:
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path()).read_bytes()


def colours_zip(images: int = 6) -> FilePayload:
    archive = zipped({f"{colour}/{i}.png": solid(colour, (8 + i, 8)) for colour in COLOURS for i in range(images)})
    return {"name": "colours.zip", "mimeType": "application/zip", "buffer": archive}


def digits_zip(digits: LabelledImages) -> FilePayload:
    files = {f"{digits.labels[i]}/{i}.png": encode_png(image) for i, image in enumerate(np.asarray(digits.images))}
    return {"name": "digits.zip", "mimeType": "application/zip", "buffer": zipped(files)}


def evaluate(page: Page, *files: FilePayload) -> Locator:
    """Returns the report."""
    page.locator("#evaluate-files").set_input_files(files)
    expect(page.locator("#report .matrix")).to_be_visible()
    return page.locator("#report")


def test_uploaded_images_get_their_labels_with_the_version_that_answered(page: Page) -> None:
    cards = upload(page, picture("red"), picture("blue"))
    for card, colour in zip(cards.all(), ("red", "blue"), strict=True):
        expect(card.locator("h3")).to_contain_text(colour)
        expect(card.locator(".bars li")).to_have_count(3)
        expect(card).to_contain_text(f"{colour}.png")
        expect(card).to_contain_text("colours, version 2, fp32")
        expect(card.locator(".timings")).to_contain_text(re.compile(r"inference [\d.]+ ms"))


def test_a_pasted_image_is_classified(page: Page) -> None:
    page.evaluate(
        """bytes => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
            dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        list(solid("green")),
    )
    expect(page.locator("#cards h3")).to_be_visible()
    expect(page.locator("#cards")).to_contain_text("pasted.png")


def test_a_drawn_digit_is_classified_after_each_stroke(page: Page) -> None:
    page.locator("#predict-model").select_option("digits")
    draw(page, (0.5, 0.2), (0.5, 0.8))  # a one
    expect(page.locator("#cards .bars .label").first).to_have_text("1")
    with page.expect_response("**/predict?*"):
        draw(page, (0.5, 0.8), (0.8, 0.8))
    expect(page.locator("#cards .card")).to_have_count(1)


def test_the_keyboard_draws_too(page: Page) -> None:
    page.locator("#predict-model").select_option("digits")
    page.locator("#canvas").focus()
    page.keyboard.press("Space")
    for _ in range(8):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("#cards h3")).to_be_visible()


def test_a_broken_image_shows_its_name_and_the_reason_beside_the_good_ones(page: Page) -> None:
    broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"not an image"}
    cards = upload(page, picture("red"), broken)
    expect(cards.nth(0).locator("h3")).to_contain_text("red")
    expect(cards.nth(1)).to_contain_text("Refused")
    expect(cards.nth(1)).to_contain_text("broken.png")
    expect(cards.nth(1).locator(".reason")).to_contain_text("not an image of a supported format")


def test_a_refused_model_shows_its_reason(page: Page) -> None:
    page.locator("#predict-model").select_option("damaged/1")
    expect(page.locator("#predict-message")).to_contain_text("damaged, version 1, is refused: The SHA-256")


def test_switching_the_model_asks_again(page: Page) -> None:
    card = upload(page, picture("red"))
    expect(card.locator("h3")).to_contain_text("red")
    page.locator("#predict-model").select_option("colours/1")
    expect(card).to_contain_text("colours, version 1")
    expect(card.locator("h3")).not_to_contain_text("red")


def test_why_shows_the_heat_map_of_a_model_that_has_one(page: Page) -> None:
    card = upload(page, picture("red"))
    expect(card.locator("h3")).to_contain_text("red")
    expect(card.get_by_role("button", name="Why?")).to_have_count(0)
    page.locator("#predict-model").select_option("explaining")
    card.get_by_role("button", name="Why?").click()
    heat_map = card.get_by_alt_text("Heat map of the regions that speak for red")
    expect(heat_map).to_have_css("opacity", "1")
    expect(heat_map).not_to_have_js_property("naturalWidth", 0)
    page.mouse.move(0, 0)
    page.keyboard.press("Space")
    expect(heat_map).to_have_css("opacity", "0")


def test_a_heat_map_that_comes_late_is_not_drawn_over_the_next_answer(page: Page) -> None:
    page.locator("#predict-model").select_option("explaining")
    card = upload(page, picture("red"))
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/predict?explain=true", hold)
    with page.expect_request("**/predict?explain=true"):
        card.get_by_role("button", name="Why?").click()
    page.locator("#predict-model").select_option("colours")
    expect(card).to_contain_text("colours, version 2")
    with page.expect_response("**/predict?explain=true"):
        held[0].continue_()
    upload(page, picture("blue"), before=1)
    expect(page.locator(".heat")).to_have_count(0)


def test_many_images_are_sent_in_several_requests(page: Page) -> None:
    cards = upload(page, *[picture("green") for _ in range(40)])
    expect(page.locator("#results-title")).to_have_text("40 images")
    assert {card.locator(".bars .label").first.inner_text() for card in cards.all()} == {"green"}


def test_the_shown_code_sends_the_same_request(page: Page, tmp_path: Path) -> None:
    name = 'it\'s; a "red", image.png'
    (tmp_path / name).write_bytes(solid("red"))
    card = upload(page, {"name": name, "mimeType": "image/png", "buffer": solid("red")})
    card.locator(".code summary").click()
    code = {}
    for language in ("curl", "Python", "JavaScript"):
        card.get_by_role("button", name=language, exact=True).click()
        code[language] = card.locator("pre").inner_text()
    curl = subprocess.run(["bash", "-c", code["curl"]], cwd=tmp_path, capture_output=True, check=True)
    python = subprocess.run([sys.executable, "-c", code["Python"]], cwd=tmp_path, capture_output=True, check=True)
    script = code["JavaScript"].replace("console.log(await response.text())", "return await response.text()")
    file = "const file = new File([new Uint8Array(bytes)], 'red.png');"
    javascript = page.evaluate(f"async bytes => {{ {file} {script} }}", list(solid("red")))
    for answer in (curl.stdout, python.stdout, javascript):
        assert json.loads(answer)["predictions"][0]["label"] == "red"


def test_answers_are_exported_as_csv(page: Page) -> None:
    upload(page, picture("red"), {"name": "=broken,1.png", "mimeType": "image/png", "buffer": b""})
    expect(page.locator("#results")).to_be_visible()
    rows = downloaded(page, page.get_by_role("button", name="Export CSV")).decode().splitlines()
    assert rows[0] == "file,label,probability,corrected,model,version,error"
    assert rows[1].startswith("red.png,red,0.99")
    assert rows[2].startswith('"\'=broken,1.png",,,,colours,2,')


def test_corrected_labels_become_a_zip_that_evaluate_reads(page: Page, site: Service) -> None:
    cards = upload(page, picture("red"), picture("blue"), picture("red"))
    for card, label in zip(cards.all()[:3], ("green", "blue", "green"), strict=True):
        card.get_by_role("button", name="Wrong?").click()
        card.get_by_label("Correct label").select_option(label)
        card.get_by_role("button", name="Save").click()
        expect(card).to_contain_text(f"Corrected to {label}")
    expect(page.locator("#corrections")).to_contain_text("3 corrected labels")
    data = downloaded(page, page.get_by_role("button", name="Download zip"))
    with site.client() as client:
        report = client.post("/evaluate", content=data, headers={"content-type": "application/zip"}).json()
    assert (report["n"], report["accuracy"]) == (3, pytest.approx(1 / 3))


def test_evaluating_a_zip_shows_the_metrics_that_the_api_computes(
    page: Page, site: Service, digits: LabelledImages
) -> None:
    file = digits_zip(digits)
    page.locator("#predict-model").select_option("digits")
    open_tab(page, "Evaluate")
    report = evaluate(page, file)
    headers = {"content-type": "application/zip"}
    with site.client() as client:
        api: dict[str, Any] = client.post("/models/digits/evaluate", content=file["buffer"], headers=headers).json()
    expect(report.locator(".tile").first).to_contain_text(f"{100 * api['accuracy']:.1f} %")
    lower, upper = (100 * api["accuracy_interval"][end] for end in ("lower", "upper"))
    expect(report.locator(".tile").first).to_contain_text(f"{lower:.1f} % to {upper:.1f} %")
    cells = [cell.inner_text() for cell in report.locator(".matrix tbody td").all()]
    assert [int(cell or 0) for cell in cells] == [count for row in api["confusion_matrix"] for count in row]
    expect(report.locator(".mistakes li")).to_have_count(len(api["worst_mistakes"]))
    for image in report.locator(".mistakes img").all():  # they come out of the zip
        expect(image).to_have_js_property("naturalWidth", 8)
    assert json.loads(downloaded(page, report.get_by_role("button", name="Export JSON"))) == api
    rows = downloaded(page, report.get_by_role("button", name="Export CSV")).decode().splitlines()
    assert [row.split(",")[0] for row in rows] == ["label", *"0123456789", "(macro average)", "(accuracy)"]


def test_a_cell_of_the_confusion_matrix_filters_the_mistakes_and_works_by_keyboard(page: Page) -> None:
    page.locator("#predict-model").select_option("colours/1")
    open_tab(page, "Evaluate")
    report = evaluate(page, colours_zip(images=4))
    before = report.locator(".mistakes li").count()
    report.locator(".matrix tbody td").first.focus()
    page.keyboard.press("ArrowRight")
    expect(report.locator(".readout").first).to_have_text("red predicted as green: 0 of 4 images (0.0 %)")
    wrong = next(cell for cell in report.locator(".matrix tbody td").all() if cell.inner_text() == "4")
    wrong.focus()
    page.keyboard.press("Enter")
    expect(report.locator(".mistakes li")).to_have_count(4)
    page.keyboard.press("Enter")
    expect(report.locator(".mistakes li")).to_have_count(before)


def test_files_with_a_csv_of_labels_are_evaluated(page: Page) -> None:
    open_tab(page, "Evaluate")
    table: FilePayload = {"name": "labels.csv", "mimeType": "text/csv", "buffer": b"file;label\nred.png;red\n"}
    page.locator("#evaluate-files").set_input_files([picture("red"), picture("blue"), table])
    expect(page.locator("#evaluate-message")).to_have_text("The CSV has no label for blue.png.")
    table["buffer"] += b'"blue.png";"green"\n'
    report = evaluate(page, picture("red"), picture("blue"), table)
    expect(report.locator(".tile").first).to_contain_text("50.0 %")
    expect(report.locator(".mistakes")).to_contain_text("is green")
    expect(report.locator(".mistakes")).to_contain_text("blue.png")


def test_two_versions_are_compared_on_the_same_images(page: Page) -> None:
    open_tab(page, "Evaluate")
    page.locator("#against").select_option("1")
    report = evaluate(page, colours_zip())
    expect(report.locator(".comparison h3")).to_contain_text("colours version 2 is better than colours version 1")
    expect(report.locator(".comparison")).to_contain_text("Difference: +100.0 points")
    expect(report.locator(".tile").first).to_contain_text("100.0 %")
    page.get_by_role("button", name="Version 1").click()
    expect(report.locator(".tile").first).to_contain_text("0.0 %")


def test_a_model_card_cannot_attack_the_page(page: Page) -> None:
    open_tab(page, "Models")
    page.locator(".version", has_text="Version 2").locator("details > summary", has_text="Details").first.click()
    page.get_by_text("Model card").click()
    card = page.locator(".prose")
    expect(card.locator("h4")).to_have_text("A card")
    expect(card).to_contain_text("<img src=x onerror=")
    expect(card.locator("td")).to_contain_text("<script>")
    assert card.locator("img, script, iframe").count() == 0
    assert [link.get_attribute("href") for link in card.locator("a").all()] == ["https://elsewhere.example/"]
    expect(page).to_have_title("Convoy")


def test_the_models_tab_shows_state_accuracy_curves_and_origin(page: Page) -> None:
    open_tab(page, "Models")
    damaged = page.get_by_label("Model damaged")
    expect(damaged.locator(".state")).to_have_text("refused")
    expect(damaged.locator(".reason")).to_contain_text("The SHA-256")
    digits = page.get_by_label("Model digits")
    expect(digits.locator(".accuracy")).to_contain_text(re.compile(r"9\d\.\d %.*n = 179, fp32"))
    digits.locator("summary").first.click()
    expect(digits.locator(".curves polyline").first).to_be_visible()
    expect(digits.locator(".facts")).to_contain_text("1,258 training, 360 validation, 179 test images")
    digits.get_by_text("Model card").click()
    expect(digits.locator(".prose")).to_contain_text("Intended use and limits")
    for image in digits.locator(".prose img").all():
        image.scroll_into_view_if_needed()
        expect(image).not_to_have_js_property("naturalWidth", 0)


def test_live_shows_the_rates_of_the_service(page: Page) -> None:
    open_tab(page, "Live")
    expect(page.locator("section.live")).to_have_count(6)
    with page.expect_response("**/metrics"):
        open_tab(page, "Predict")
        upload(page, picture("red"))
        open_tab(page, "Live")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, site: Service, digits: LabelledImages, *, dark: bool) -> None:
    with opened(browser, site.url, dark=dark) as page:
        broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b""}
        upload(page, picture("red"), broken).first.locator(".code summary").click()
        page.get_by_role("button", name="Wrong?").first.click()
        assert serious_findings(page) == []
        open_tab(page, "Evaluate")
        page.locator("#against").select_option("1")
        evaluate(page, colours_zip())
        assert serious_findings(page) == []
        open_tab(page, "Models")
        page.locator(".version summary").first.click()
        expect(page.locator(".facts").first).to_be_visible()
        assert serious_findings(page) == []
        open_tab(page, "Live")
        expect(page.locator("section.live")).to_have_count(6)
        assert serious_findings(page) == []
        page.get_by_role("button", name="Key").click()
        assert serious_findings(page) == []


def test_the_page_fits_a_window_of_360_pixels(browser: Browser, site: Service, digits: LabelledImages) -> None:
    with opened(browser, site.url, width=360) as page:
        page.locator("#predict-model").select_option("digits")
        upload(page, picture("red"))
        widths = {"Predict": overflow(page)}
        open_tab(page, "Evaluate")
        evaluate(page, digits_zip(digits))
        widths["Evaluate"] = overflow(page)
        open_tab(page, "Models")
        page.locator("#model-list summary").first.click()
        expect(page.locator(".facts").first).to_be_visible()
        widths["Models"] = overflow(page)
        open_tab(page, "Live")
        expect(page.locator("section.live")).to_have_count(6)
        assert widths | {"Live": overflow(page)} == dict.fromkeys(TABS, 0)


def test_arrow_keys_move_between_the_tabs_and_the_address_names_the_tab(page: Page) -> None:
    page.get_by_role("tab", name="Predict").focus()
    for name in (*TABS[1:], "Predict"):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()
    page.goto(f"{page.url.partition('#')[0]}#models")
    expect(page.get_by_role("tabpanel", name="Models")).to_be_visible()


def test_an_admin_promotes_rolls_back_unloads_and_loads_with_a_key(
    browser: Browser, models: Path, tmp_path: Path
) -> None:
    write_bundle(tmp_path, version=1)
    write_bundle(tmp_path, version=2)
    with (
        serving_bundles(tmp_path, CONVOY_WORKERS="1", CONVOY_ADMIN_KEYS=ADMIN_KEY) as service,
        opened(browser, f"{service.url}/#models") as page,
    ):
        serving = page.locator(".version.serves")
        message = page.locator("#models-message")
        expect(serving).to_contain_text("Version 2")
        page.get_by_role("button", name="Roll back to 1").click()
        expect(page.locator("#key-reason")).to_contain_text("This request needs a key")
        page.get_by_label("Key", exact=True).fill("not the key")
        page.keyboard.press("Enter")
        expect(page.locator("#key-reason")).to_contain_text("does not know this key")
        page.get_by_label("Key", exact=True).fill(ADMIN_KEY)
        page.keyboard.press("Enter")
        expect(message).to_have_text("colours, version 1, serves.")
        expect(serving).to_contain_text("Version 1")
        page.get_by_role("button", name="Promote", exact=True).click()
        expect(serving).to_contain_text("Version 2")
        page.get_by_role("button", name="Unload").click()
        page.get_by_role("dialog").get_by_role("button", name="Unload").click()
        expect(message).to_have_text("colours is unloaded.")
        expect(page.locator(".version.unloaded").first).to_be_visible()
        page.get_by_role("button", name="Load", exact=True).first.click()
        expect(message).to_have_text("colours is loaded.")
        expect(serving).to_contain_text("Version 2")


def call(page: Page, module: str, expression: str, argument: object) -> Any:
    """Evaluates a JavaScript expression of `module`, a file of static/js/, and of `argument`."""
    return page.evaluate(
        f"async argument => {{ const module = await import('/static/js/{module}.js'); return {expression}; }}", argument
    )


def test_quantiles_are_interpolated_within_their_bucket_as_prometheus_does(page: Page) -> None:
    text = "".join(
        f'seconds_bucket{{le="{bound}",route="a\\"}}b"}} {count}\n'
        for bound, count in (("0.1", 50), ("0.2", 90), ("0.4", 100), ("+Inf", 100))
    )
    buckets = (
        "module.parseMetrics(argument).map(({labels, value}) => [labels.le === '+Inf' ? Infinity : +labels.le, value])"
    )
    found = call(page, "prometheus", f"[0.25, 0.5, 0.7, 0.99].map(q => module.quantile({buckets}, q))", text)
    assert found == pytest.approx([0.05, 0.1, 0.15, 0.38])


def test_the_shown_javascript_sends_every_file(page: Page) -> None:
    request = {
        "path": "models/colours/evaluate",
        "files": [{"field": "files", "name": f"{colour}.png"} for colour in ("red", "blue")],
        "fields": [["labels", "red"], ["labels", "blue"]],
    }
    script = call(page, "snippets", "module.snippets(argument).JavaScript", request)
    script = script.replace("console.log(await response.text())", "return await response.json()")
    files = "const files = images.map((bytes, i) => new File([new Uint8Array(bytes)], `${i}.png`));"
    images = [list(solid(colour)) for colour in ("red", "blue")]
    report = page.evaluate(f"async images => {{ {files} {script} }}", images)
    assert (report["n"], report["accuracy"]) == (2, 1)


def test_csv_keeps_every_cell_and_disarms_formulas(page: Page) -> None:
    rows = [["file", "label"], ['a "b", c.png', "line\nbreak"], ["ümlaut.png", "x"]]
    text = call(page, "format", "module.csv(argument)", rows)
    assert list(csv.reader(io.StringIO(text))) == rows
    assert call(page, "format", "module.parseCsv(argument)", text) == rows
    assert call(page, "format", "module.csv(argument)", [["=1+1", -1]]) == "'=1+1,-1\r\n"


def test_dropped_images_and_folders_are_classified_once(page: Page, class_folders: Path) -> None:
    drop(page, "#drop", class_folders / "red" / "1.png", class_folders / "blue" / "1.png")
    expect(page.locator("#cards .answer h3")).to_have_count(2)
    drop(page, "#results", class_folders)  # beside the zone
    expect(page.locator("#cards .answer h3")).to_have_count(5)
    assert page.locator("#cards .card").count() == 5


def test_a_dropped_folder_of_class_folders_is_evaluated_once(page: Page, class_folders: Path) -> None:
    open_tab(page, "Evaluate")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    drop(page, "#evaluate-drop", class_folders)
    expect(page.locator("#report .report-title")).to_contain_text("3 images")
    assert len([url for url in sent if "/evaluate" in url]) == 1


def test_clearing_the_images_ends_their_classification(page: Page) -> None:
    sent: list[Route] = []

    def hold_the_first(route: Route) -> None:
        sent.append(route)
        if len(sent) > 1:
            route.continue_()

    page.route("**/predict?*", hold_the_first)
    page.locator("#files").set_input_files([picture("green") for _ in range(40)])
    expect(page.locator("#predict-message")).to_have_text("Classifying 1 to 16 of 40 images …")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#predict-message")).to_be_hidden()
    sent[0].continue_()
    upload(page, picture("red"))
    assert len(sent) == 2


def test_images_without_an_answer_are_sent_again_on_request(page: Page) -> None:
    page.context.set_offline(True)
    page.locator("#files").set_input_files([picture("red"), picture("blue")])
    expect(page.locator("#cards h3")).to_have_text(["No answer", "No answer"])
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator("#cards h3")).to_contain_text(["red", "blue"])


def test_undoing_or_leaving_a_correction_keeps_the_focus(page: Page) -> None:
    card = upload(page, picture("red"))
    card.get_by_role("button", name="Wrong?").press("Enter")
    page.keyboard.press("Escape")
    expect(card.get_by_role("button", name="Wrong?")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(card.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(card.get_by_role("button", name="Wrong?")).to_be_focused()


def test_a_csv_that_cannot_label_the_images_is_refused_with_a_reason(page: Page, tmp_path: Path) -> None:
    open_tab(page, "Evaluate")
    message = page.locator("#evaluate-message")
    table: FilePayload = {"name": "labels.csv", "mimeType": "text/csv", "buffer": b"\n"}
    page.locator("#evaluate-files").set_input_files([picture("red"), table])
    expect(message).to_contain_text("The CSV is empty.")
    for folder, colour in (("a", "red"), ("b", "blue")):
        write_solid(tmp_path / folder / "1.png", colour)
    (tmp_path / "labels.csv").write_text("file,label\na/1.png,red\nb/1.png,blue\n")
    page.locator("#evaluate-files").set_input_files([tmp_path / "a" / "1.png", tmp_path / "labels.csv"])
    expect(message).to_contain_text("The CSV labels 1.png as red and as blue.")
    page.locator("#evaluate-folder").set_input_files(tmp_path)
    expect(page.locator("#report .tile").first).to_contain_text("100.0 %")


def test_a_matrix_of_100_classes_fits_the_window(page: Page) -> None:
    open_tab(page, "Evaluate")
    hidden = call(
        page,
        "charts",
        """(() => {
            const labels = Array.from({ length: 100 }, (_, i) => `class ${i}`);
            const matrix = module.confusionMatrix(labels, labels.map(() => labels.map(() => 1)), () => {});
            const box = (className) => Object.assign(document.createElement("div"), { className });
            const [pair, card] = [box("pair"), box("card")];
            card.append(matrix);
            pair.append(card, box("card"));
            document.getElementById("report").replaceChildren(pair);
            const scroll = matrix.querySelector(".scroll");
            return scroll.scrollWidth - scroll.clientWidth;
        })()""",
        None,
    )
    assert hidden == 0


def test_the_outcome_of_an_action_far_down_the_page_is_in_view(page: Page) -> None:
    page.set_viewport_size({"width": 1100, "height": 400})
    open_tab(page, "Models")
    page.get_by_label("Model explaining").scroll_into_view_if_needed()
    page.get_by_role("button", name="Refresh").evaluate("button => button.click()")
    expect(page.locator("#models-message")).to_have_text("The list is up to date.")
    expect(page.locator("#models-message")).to_be_in_viewport(ratio=1)


def test_live_goes_on_after_the_service_was_away(page: Page) -> None:
    page.context.set_offline(True)
    open_tab(page, "Live")
    expect(page.locator("#live-message")).to_contain_text("The service does not answer.")
    page.context.set_offline(False)
    expect(page.locator("section.live")).to_have_count(6)
    expect(page.locator("#live-message")).to_be_hidden()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for a key, with two versions of colours."""
    artifacts = tmp_path_factory.mktemp("guarded")
    for version in (1, 2):
        report = write_bundle(artifacts, version=version) / "report"
        (report / "report.html").write_text("<!doctype html><title>The report</title>")
    with serving_bundles(artifacts, CONVOY_WORKERS="1", CONVOY_API_KEYS="user", CONVOY_ADMIN_KEYS=ADMIN_KEY) as running:
        yield running


def give_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_key_that_is_given_later_loads_the_models_and_classifies_the_waiting_images(
    browser: Browser, guarded: Service
) -> None:
    with opened(browser, guarded.url) as page:
        expect(page.locator("#key-reason")).to_contain_text("This request needs a key")
        page.keyboard.press("Escape")
        expect(page.locator("#predict-message")).to_contain_text("This request needs a key")
        page.locator("#files").set_input_files([picture("red")])
        page.get_by_role("button", name="Key").click()
        give_key(page, "user")
        expect(page.locator("#cards h3")).to_contain_text("red")
        expect(page.locator("#predict-message")).to_be_hidden()


def test_requests_that_fail_meanwhile_do_not_erase_the_key_that_is_being_typed(
    browser: Browser, guarded: Service
) -> None:
    with opened(browser, guarded.url) as page:
        field = page.get_by_label("Key", exact=True)
        field.fill("us")
        with page.expect_response("**/metrics"):
            page.evaluate("void import('/static/js/api.js').then(({ getText }) => getText('metrics'))")
        expect(field).to_have_value("us")
        with page.expect_response(lambda response: response.url.endswith("/metrics") and response.ok):
            give_key(page, "user")


def test_with_a_key_the_report_page_is_downloaded(browser: Browser, guarded: Service) -> None:
    with opened(browser, f"{guarded.url}/#models") as page:
        give_key(page, "user")
        page.locator(".version.serves summary", has_text="Details").click()
        link = page.get_by_role("link", name="report.html")
        with page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename == "report.html"
        assert "The report" in Path(download.value.path()).read_text()


def test_the_page_notices_that_another_version_was_promoted(browser: Browser, guarded: Service) -> None:
    with opened(browser, guarded.url) as page:
        give_key(page, "user")
        picker = page.locator("#predict-model")
        expect(picker).to_contain_text("colours (version 2)")
        with guarded.client() as client:
            client.post(
                "/models/colours/promote", json={"version": 1}, headers={"X-API-Key": ADMIN_KEY}
            ).raise_for_status()
            until(lambda: client.get("/models/colours", headers={"X-API-Key": "user"}).json()["version"] == 1)
        expect(upload(page, picture("red"))).to_contain_text("colours, version 1, fp32")
        expect(picker).to_contain_text("colours (version 1)")


def test_the_reference_requests_nothing_from_other_hosts(browser: Browser, site: Service) -> None:
    with opened(browser, f"{site.url}/redoc") as page:
        expect(page.locator("h1").first).to_contain_text("Convoy")
        expect(page.get_by_alt_text("redocly logo")).to_be_attached()


@pytest.fixture
def docs(browser: Browser, site: Service) -> Iterator[Page]:
    with opened(browser, f"{site.url}/docs") as visited:
        yield visited


def try_it_out(page: Page, operation: str, media_type: str, *files: FilePayload) -> Any:
    """Executes the operation as it opens, with these files, and returns the response."""
    block = page.locator(f"[id^=operations-{operation}]").first
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    block.locator(".opblock-section-request-body select.content-type").select_option(media_type)
    if files:
        block.locator("input[type=file]").last.set_input_files(files)
    with page.expect_response(lambda response: response.request.method == "POST") as sent:
        block.get_by_role("button", name="Execute").click()
    assert sent.value.status == 200, sent.value.text()
    return sent.value.json()


def test_try_it_out_classifies_json_as_it_opens(docs: Page) -> None:
    answer = try_it_out(docs, "predict-predict_with_models__name__predict", "application/json")
    assert (answer["model"], answer["predictions"][0]["label"]) == ("digits", "7")


@pytest.mark.parametrize("media_type", ["multipart/form-data", "image/*"])
def test_try_it_out_classifies_a_file(docs: Page, media_type: str) -> None:
    answer = try_it_out(docs, "predict-predict_predict", media_type, picture("red"))
    assert answer["predictions"][0]["label"] == "red"


def test_try_it_out_evaluates_json_as_it_opens(docs: Page) -> None:
    assert try_it_out(docs, "evaluate-evaluate_evaluate", "application/json")["n"] == 2


@pytest.mark.parametrize("media_type", ["multipart/form-data", "application/zip"])
def test_try_it_out_evaluates_a_zip(docs: Page, media_type: str) -> None:
    assert try_it_out(docs, "evaluate-evaluate_evaluate", media_type, colours_zip())["accuracy"] == 1


def test_the_documentation_is_dark_if_the_browser_prefers_it(browser: Browser, site: Service) -> None:
    with opened(browser, f"{site.url}/docs", dark=True) as page:
        expect(page.locator(".opblock").first).to_be_visible()
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert max(map(int, re.findall(r"\d+", colour)[:3])) < 80


def test_takes_the_screenshots_of_the_guides(
    browser: Browser, site: Service, models: Path, digits: LabelledImages, tmp_path: Path
) -> None:
    golden = models / "digits" / "1" / "golden"
    files = [
        FilePayload(name=f"{i}.png", mimeType="image/png", buffer=(golden / f"{i}.png").read_bytes()) for i in (2, 5)
    ]
    for name, width in (("page", 1100), ("page-narrow", 360)):
        with opened(browser, site.url, width=width) as page:
            page.locator("#predict-model").select_option("digits")
            upload(page, *files)
            draw(page, (0.3, 0.25), (0.7, 0.25), (0.45, 0.8))  # a seven
            expect(page.locator("#cards .value")).to_have_count(15)
            take_screenshot(page, name, tmp_path)
    with opened(browser, site.url, dark=True) as page:
        page.locator("#predict-model").select_option("digits")
        open_tab(page, "Evaluate")
        evaluate(page, digits_zip(digits)).scroll_into_view_if_needed()
        take_screenshot(page, "page-dark", tmp_path)
