"""The page of a report, read as a file: its numbers, that it needs nothing else, its escaping."""

import base64
import hashlib
import json
import re
import shutil
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest
import safetensors.torch
import torch

from onelip.cli import main
from onelip.errors import SoundnessError, UsageError
from onelip.experiments.classification import find_runs, write_report
from onelip.experiments.classification.attack import attacked_rows
from onelip.experiments.classification.report.markup import element
from onelip.experiments.classification.report.subjects import below
from onelip.experiments.recipes import RECIPES
from tests.experiments.classification.report_runs import CLASSES, altered, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run):
    out = run.parent / "report.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    return Page(out.read_text(encoding="utf-8"))


class Page(HTMLParser):
    """Elements, texts and tables of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.elements, self.tables, self.within = text, [], {}, {}
        self._open, self._caption, self._rows = [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in (
            "title",
            "style",
            "script",
            "caption",
            "th",
            "td",
            "h3",
            "dt",
            "dd",
            "p",
            "code",
        ):
            self._open.append((tag, []))
        if tag == "table":
            self._rows = []
        if tag == "tr" and self._rows is not None:
            self._rows.append([])

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        for _, words in self._open:
            words.append(data)

    def handle_endtag(self, tag):
        if self._open and self._open[-1][0] == tag:
            words = "".join(self._open.pop()[1])
            self.within.setdefault(tag, []).append(words)
            if tag == "caption":
                self._caption = words
            if tag in ("th", "td"):
                self._rows[-1].append(words)
        if tag == "table":
            self.tables[self._caption] = self._rows

    @property
    def data(self):
        return json.loads(self.within["script"][0])


def record_of(run):
    return json.loads((run / "metrics.json").read_text())


def radii_of(run):
    return safetensors.torch.load_file(run / "certificates.safetensors")


def decoded(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


def down(share, samples):
    """Per cent of whole samples, rounded downwards."""
    return f"{int(10000 * Fraction(round(share * samples), samples)) / 100:.2f}"


def test_radii_are_those_of_the_record_rounded_down(run, page):
    (subject,) = page.data["subjects"]
    (seed,) = subject["seeds"]
    stored = radii_of(run)
    radius = decoded(seed["radius"], "<f4")
    exact = stored["radius"].numpy()
    assert (radius.astype(np.float64) <= exact).all()
    assert (np.nextafter(radius, np.float32(np.inf)).astype(np.float64) > exact).all()
    assert (decoded(seed["prediction"], "<u2") == stored["prediction"].numpy()).all()
    assert (decoded(seed["label"], "<u2") == stored["labels"].numpy()).all()


def test_no_share_on_the_slider_is_above_the_proved_one(run, page):
    seed, stored = page.data["subjects"][0]["seeds"][0], radii_of(run)
    radius, right = decoded(seed["radius"], "<f4"), stored["prediction"] == stored["labels"]
    recipe = record_of(run)["certify"]["test"]["certified"]
    assert {float(eps) for eps in recipe} < set(page.data["grid"])
    for eps, text in zip(page.data["grid"], page.data["texts"], strict=True):
        assert float(Fraction(text)) == eps
        shown = int(((radius.astype(np.float64) > eps) & right.numpy()).sum())
        proved = int((right & (stored["radius"] > eps)).sum())
        assert shown <= proved
        if repr(eps) in recipe:
            assert shown / len(radius) == recipe[repr(eps)]


def test_tables_hold_the_record(run, page):
    record = record_of(run)
    test, (key, attack) = record["certify"]["test"], next(iter(record["attack"].items()))
    head, certified, same, attacked = page.tables["Accuracy in per cent at the radii of the recipe"]
    assert head == ["eps", "0 (clean)", "0.1", "0.3", "0.5"]
    shares = [test["clean"], *test["certified"].values()]
    assert certified == ["certified, all 60", *(down(share, 60) for share in shares)]
    for row, what in ((same, "certified"), (attacked, "attacked")):
        shares = [attack["clean"], *(at[what] for at in attack["eps"])]
        assert row[1:] == [down(share, 40) for share in shares]
    assert attacked[0] == f"attacked: {key}"
    shown = page.data["subjects"][0]["attack"]
    assert [row["text"] for row in shown["at"]] == attacked[1:]
    assert [row["eps"] for row in shown["at"]] == [0.0, 0.1, 0.3, 0.5]


def test_classes_add_up(run, page):
    stored = radii_of(run)
    right = stored["prediction"] == stored["labels"]
    _, *rows = page.tables["Clean and certified accuracy by class: digits"]
    assert [row[0] for row in rows] == sorted(CLASSES)
    for label, (_, samples, clean, *certified) in enumerate(rows):
        of_class = stored["labels"] == label
        count = int(of_class.sum())
        assert samples == str(count)
        assert clean == down(float(right[of_class].double().mean()), count)
        for eps, words in zip((0.1, 0.3, 0.5), certified, strict=True):
            found = (right & (stored["radius"] > eps))[of_class]
            assert words == down(float(found.double().mean()), count)


def test_quantiles_are_radii_of_samples(run, page):
    stored = radii_of(run)
    radii = stored["radius"][stored["prediction"] == stored["labels"]]
    rows = page.tables["Certified radii of samples that are predicted right, rounded down"]
    _, count, least, *_, largest = rows[1]
    assert count == str(len(radii))
    assert 0 <= float(radii.min()) - float(least) < 1e-3 * float(radii.min()) + 1e-12
    assert 0 <= float(radii.max()) - float(largest) < 1e-3 * float(radii.max())


def test_bounds_are_rounded_up(run, page):
    rows = {row[0]: row[1:] for row in page.tables["What the certificates rest on"]}
    certify = record_of(run)["certify"]
    for name, key in (
        ("proved Lipschitz bound", "bound"),
        ("in front of the head", "body_bound"),
    ):
        assert 0 <= float(rows[name][0]) - certify[key] <= 1e-9
    assert rows["level"] == ["real"]
    assert rows["test samples"] == ["60"]


def test_the_gallery_follows_its_rule(run, page):
    assert page.within["h3"] == [f"Sample {row}" for row in attacked_rows(60, 24).tolist()]
    stored, names = radii_of(run), sorted(CLASSES)
    terms = iter(zip(page.within["dt"], page.within["dd"], strict=True))
    for row in attacked_rows(60, 24).tolist():
        assert next(terms) == ("label", names[stored["labels"][row]])
        right = stored["labels"][row] == stored["prediction"][row]
        assert next(terms)[1] == names[stored["prediction"][row]] + ("" if right else " (wrong)")
        name, radius = next(terms)
        proved = float(stored["radius"][row])
        assert name == "radius"
        assert (0 <= proved - float(radius) < 1e-3) if right else radius == "none"
        assert next(terms)[0] == "runner-up"
        if right:
            name, distance = next(terms)
            assert name in ("attack", "attack at")
            if name == "attack at":
                assert float(distance) >= proved
                assert next(terms)[0] == "becomes"
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) > 24
    assert all(image["alt"] for image in images)


def test_the_page_needs_nothing_else(page):
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "audio", "video")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name, value in attributes.items():
            if name in ("src", "srcset", "data", "action", "poster", "background"):
                assert value.startswith("data:image/png;base64,")
            if name == "href":
                assert value.startswith("#")
    (style,), (_, script) = page.within["style"], page.within["script"]
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(
        r"fetch|XMLHttpRequest|import\(|WebSocket|eval|innerHTML|https?:(?!//www.w3.org/)", script
    )
    assert script.count("\n") < 300
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv"))
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    ]
    assert rules == {
        "default-src": "'none'",
        "style-src": digests[0],
        "script-src": digests[1],
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_hostile_names_stay_text(page):
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not any(a.get("src") == "x" or "onerror" in a for _, a in page.elements)
    assert "<" not in page.within["script"][0]
    assert "<script>alert" not in page.text


def test_headings_labels_and_captions(page):
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == 1
    assert tags.count("main") == tags.count("nav") == tags.count("header") == 1
    names = {a["id"] for _, a in page.elements if "id" in a}
    for tag, attributes in page.elements:
        if tag == "section":
            assert attributes["aria-labelledby"] in names
        if tag == "a":
            assert attributes["href"][1:] in names
        if tag == "th":
            assert attributes["scope"] in ("col", "row", "rowgroup")
    assert len(page.tables) == tags.count("table")
    spoken = next(a for _, a in page.elements if a.get("id") == "spoken")
    assert spoken["aria-live"] == "polite"


def test_training_curves_are_the_epochs(run, page):
    epochs = record_of(run)["train"]["epochs"]
    training = page.data["subjects"][0]["training"]
    assert list(training)[-1] == "seconds"
    for name, (values,) in training.items():
        assert values == [epoch[name] for epoch in epochs]


def test_commands_make_the_run_again(run, page):
    train_line, certify_line, attack_line = page.within["code"][0].splitlines()
    assert train_line.startswith(f"onelip train digits --data {run.parent}/data.npz --epochs=4")
    assert train_line.endswith(f"--network.features=16 --out {run}")
    assert "--eps=[0.1,0.3,0.5]" in train_line
    assert "--loss" not in train_line  # as in the recipe
    assert certify_line == f"onelip certify {run} --level real --method product"
    assert attack_line.endswith("--attacks fmn,apgd-t --samples 40")


def test_seeds_are_averaged_and_settings_compared(run, tmp_path):
    folders = [run, altered(run, tmp_path / "one", seed=1)]
    other = altered(run, tmp_path / "other", seed=2)
    record = record_of(other)
    record["recipe"]["lr"] = 0.5
    (other / "metrics.json").write_text(json.dumps(record))
    out = write_report(find_runs([*folders, other]), tmp_path / "all.html", recipes=RECIPES)
    page = Page(out.read_text())
    subjects = page.data["subjects"]
    labels = sorted(subject["label"] for subject in subjects)
    assert labels[1] == "lr 0.5"
    both = next(subject for subject in subjects if subject["label"] != "lr 0.5")
    assert len(both["seeds"]) == 2
    counts = [round(60 * record_of(f)["certify"]["test"]["certified"]["0.3"]) for f in folders]
    rows = page.tables["Accuracy in per cent at the radii of the recipe"]
    at = next(i for i, row in enumerate(rows) if row == [both["label"]]) + 1
    spread = 100 * np.std([count / 60 for count in counts], ddof=1)
    assert rows[at][3] == f"{int(10000 * sum(counts) / 120) / 100:.2f}± {spread:.2f}"


def test_ten_thousand_samples_fit_into_little(run, tmp_path):
    many = altered(run, tmp_path / "many", seed=3, samples=10_000)
    lines = []
    out = write_report(find_runs([many]), tmp_path / "many.html", say=lines.append)
    assert out.stat().st_size < 250_000
    assert [line.partition(":")[0] for line in lines] == [f"no gallery of {many}"]
    page = Page(out.read_text())
    assert any("name it by --data" in words for words in page.within["p"])
    assert page.tables["What the certificates rest on"]


def test_an_attack_inside_a_radius_is_an_error(run, tmp_path):
    wrong = altered(run, tmp_path / "wrong", scale=50.0)
    with pytest.raises(SoundnessError, match="please report this run"):
        write_report(find_runs([wrong]), tmp_path / "wrong.html")
    assert not (tmp_path / "wrong.html").exists()


def test_what_cannot_be_reported(run, tmp_path, capsys):
    def refused(message, *words):
        capsys.readouterr()
        assert main(["report", *map(str, words)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert message in err

    refused("onelip train makes one", tmp_path / "none")
    refused("--out report.html", run, "--out", tmp_path / "page.pdf")
    refused("folder that exists", run, "--out", tmp_path / "no" / "page.html")
    refused("--out report.html", run, altered(run, tmp_path / "one", seed=1))
    record = record_of(run)
    record["certify"]["test"]["certified"]["0.3"] += 1 / 60
    shutil.copytree(run, tmp_path / "liar")
    (tmp_path / "liar" / "metrics.json").write_text(json.dumps(record))
    refused("say different things: onelip certify", tmp_path / "liar")
    (tmp_path / "liar" / "certificates.safetensors").unlink()
    refused("is not certified yet: onelip certify", tmp_path / "liar")
    assert not list(tmp_path.glob("*.html"))


def test_a_run_without_weights_is_reported_without_them(run, tmp_path):
    shutil.copytree(run, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    lines = []
    out = write_report(find_runs([tmp_path / "bare"]), say=lines.append)
    assert out == tmp_path / "bare" / "report.html"
    assert [line.split(" of ")[0] for line in lines] == ["no gallery", "no singular values"]


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e-46, 1e-320, 1e39, float("inf"), 0.5])
def test_radii_in_32_bits_are_the_next_below(value):
    found = below(torch.tensor([value], dtype=torch.float64))
    assert found.dtype == np.dtype("<f4")
    assert float(found[0]) <= value
    if value < 1e38:
        assert float(np.nextafter(found[0], np.float32(np.inf))) > value
    else:
        assert float(found[0]) == min(value, float(np.finfo(np.float32).max)) or value == float(
            "inf"
        )


def test_text_is_escaped_where_it_becomes_markup():
    assert element("p", "<b>", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;</p>'
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"


def test_no_runs_are_refused():
    with pytest.raises(UsageError, match="onelip train makes some"):
        write_report([])
