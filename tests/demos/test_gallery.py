"""The gallery says what the committed results hold, and calls things by what they are."""

import copy
import json
import re
from pathlib import Path
from statistics import median

import pytest
from claims import (
    OPTIMAL,
    called_minimum_wrongly,
    called_optimal_wrongly,
    rank_without_its_estimate,
    rows,
    sentences,
    unconverged,
)

DEMOS = Path(__file__).parents[2] / "demos"
README = (DEMOS.parent / "README.md").read_text(encoding="utf-8")
GALLERY = (DEMOS / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.stem for path in DEMOS.glob("[0-9][0-9]_*.py"))
ROWS = [[cell.strip() for cell in line.strip("|").split("|")]
        for line in GALLERY.splitlines() if line.startswith("| ")][1:]
# The names of quantities hold digits too; what is left are measured numbers.
NAMES = re.compile(r"\[[^\]]*\]\([^)]*\)|`[^`]*`|L̃ (?:=|from) [\d., and]+(?:to \d+)?|p = 1/4"
                   r"|[−-]2H|2L̃|\d+(?: → \d+)+|Figure \d|Theorem \d|Proposition \d|\[0, 1\]")
NUMBER = re.compile(r"(?<![\w.])-?\d[\d.]*(?:e[+-]?\d+)?%?")
#: Demos whose −2H/L̃ is that of the theorem on exact paths, where both estimates are one.
IDENTITY = "06_theorem_4"
#: How constant the Hamiltonian of an exact path is, as the gallery has it.
EXACT = 1e-9


def recorded(stem):
    return json.loads((DEMOS / "results" / f"{stem}.json").read_text(encoding="utf-8"))


def benchmark(name):
    return json.loads((DEMOS / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def entry(stem):
    """What the gallery says of a demo."""
    return GALLERY.split(f"**[{stem}.py]({stem}.py)**", 1)[1].split("```sh", 1)[0]


def numbers_of(text):
    return [number.rstrip(".") for number in NUMBER.findall(NAMES.sub("", text))]


def missing(numbers, said):
    return [n for n in numbers if not re.search(rf"(?<![\d.]){re.escape(n)}(?!\d|\.\d)", said)]


def section(title, page="README.md"):
    """A section of a page as one line."""
    text = (DEMOS.parent / page).read_text(encoding="utf-8")
    return " ".join(re.split(rf"(?m)^##? {title}\n", text)[1].split("\n## ", 1)[0].split())


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", SCRIPTS)
def test_every_demo_has_an_entry_its_results_and_a_figure(stem):
    assert f"[{stem}.py]({stem}.py)" in GALLERY
    assert f"python demos/{stem}.py" in GALLERY
    assert (DEMOS / "figures" / f"{stem}.png").stat().st_size > 10_000
    assert "--small" not in recorded(stem)["command"]


def test_the_gallery_links_to_nothing_that_is_missing():
    links = re.findall(r"\]\(([^)#]+)\)", GALLERY)
    assert len(links) > len(SCRIPTS)
    assert [link for link in links
            if not link.startswith("https://") and not (DEMOS / link).exists()] == []


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:40] for row in ROWS])
def test_the_numbers_of_a_claim_are_in_the_results_of_its_demo(row):
    _, found, verdict, where = row
    said = "\n".join(sentence for stem in re.findall(r"\((\d\d_\w+)\.py\)", where)
                     for sentence in recorded(stem)["findings"])
    numbers = numbers_of(found)
    assert numbers
    assert missing(numbers, said) == []
    assert verdict.split(":")[0] in ("agree", "agree in part", "does not agree")


@pytest.mark.parametrize("stem", SCRIPTS)
def test_the_numbers_of_an_entry_are_in_the_results_of_its_demo(stem):
    record = recorded(stem)
    said = "\n".join([*record["findings"], json.dumps(record["settings"])])
    assert missing(numbers_of(entry(stem)), said) == []


def test_the_readme_says_of_the_built_in_problem_what_demo_1_holds():
    text, seeds = section("The idea"), recorded("01_optimal_network")["seeds"]
    names = ("optimal control", "gradient descent", "gradient descent, longer",
             "gradient descent, same seconds", "optimal control from descent")
    control, adam, longer, same, _ = (seeds[0]["rows"][name] for name in names)
    assert f"converges to J = {control['objective']:.5f}" in text
    assert control["status"] == "converged"
    assert f"to {control['stationarity']:.0e}".replace("e-0", "e-") in text
    assert "(proved)" in control["second_order"]
    assert (f"fit in the solver's {control['cpu_seconds']:.1f} s of CPU, reaches "
            f"{same['objective']:.5f}") in text
    assert f"{adam['objective']:.5f} after the paper's {adam['iterations']} epochs" in text
    assert f"stationarity of {adam['stationarity']:.2f}" in text
    assert (f"{longer['objective']:.5f} after {longer['iterations']}, with "
            f"{longer['stationarity']:.4f}") in text
    for row in (control, adam):
        assert f"{row['bottleneck_rank']:.1f} and {row['cost_of_identity']:.1f}" in text
    taken = [seed["rows"]["optimal control"]["cpu_seconds"] for seed in seeds]
    assert f"take {min(taken):.1f} to {max(taken):.1f} s of CPU" in text


def test_the_readme_says_of_five_seeds_what_demo_1_holds():
    text, seeds = section("The idea"), recorded("01_optimal_network")["seeds"]
    rows = [seed["rows"] for seed in seeds]
    solver = ("optimal control", "optimal control from descent")
    adam = [name for name in rows[0] if name not in solver]

    def objective(row, name):
        return row[name]["objective"]

    gaps = [objective(row, solver[0]) / objective(row, adam[-1]) - 1 for row in rows]
    assert adam[-1] == "gradient descent, same seconds"
    assert max(gaps) < 0
    assert f"by {-100 * median(gaps):.1f} % in the median" in text
    below = [[min(objective(row, name) for name in adam) > objective(row, own) for own in solver]
             for row in rows]
    assert f"below the best of all runs of Adam {sum(own for own, _ in below)} times" in text
    assert all(own or continued for own, continued in below)
    solved = [row[name] for row in rows for name in solver]
    trained = [row[name] for row in rows for name in adam]
    assert {row["status"] for row in solved} == {"converged"}
    assert f"stationarity of {max(row['stationarity'] for row in solved):.1e} or less" in text
    assert f"end at {min(row['stationarity'] for row in trained):.2g} or more" in text
    lowest = [min(row, key=lambda n, row=row: row[n]["test_error"]) for row in rows]
    assert f"solver's {sum(n.startswith('optimal') for n in lowest)} times" in " ".join(
        text.split())


def test_the_page_of_the_table_says_of_kinks_and_drift_what_demo_1_holds():
    text = section("How to read the table", "docs/table.md")
    seeds = recorded("01_optimal_network")["seeds"]
    kinks = [[seed["rows"][name]["kinks"] for seed in seeds]
             for name in ("optimal control", "gradient descent, longer")]
    assert ", and ".join(f"{min(k)} to {max(k)}" for k in kinks) + " after 60000 epochs" in text
    drift = [seed["rows"]["optimal control"]["hamiltonian_drift"] for seed in seeds]
    assert f"still {min(drift):.1f} to {max(drift):.1f}" in text


def test_the_page_of_the_certificate_says_of_points_that_were_left_what_was_counted():
    rows = [row for row in benchmark("escape")["rows"] if row["starts"] == 1]
    falls = [100 * (1 - row["last"] / row["first"]) for row in rows if row["left"]]
    proved = sum("(proved)" in row["second_order"] for row in rows)
    text = section("Points that are left", "docs/certificate.md")
    assert f"{len(falls)} of {len(rows)} random problems came to such a point" in text
    assert f"lower by {median(falls):.2g} % in the median and {max(falls):.2g} % at most" in text
    assert f"as at {proved} of the {len(rows)}" in text
    assert not any(row["second_order"].startswith(("descent", "saddle", "concave")) for row in rows)


def test_the_readme_says_of_tables_of_other_people_what_was_measured():
    text, rows = section("The idea"), benchmark("other_tables")["rows"]
    ratios = [row["J"] / row["J_adam"] for row in rows]
    assert f"On {len({row['table'] for row in rows})} tables" in text
    assert f"in {sum(r <= 1 + 1e-6 for r in ratios)} of {len(rows)}, more than 2 %" in text
    assert f"below in {sum(r < 0.98 for r in ratios)} and at worst " \
        f"{100 * (max(ratios) - 1):.1f} % above" in text
    assert f"take {median(row['cpu_seconds'] for row in rows):.1f} s of CPU" in text


def best(results, method, seed, start):
    return min((r for r in results["runs"] if (r["method"], r["seed"], r["start"]) == (
        method, seed, start)), key=lambda r: r["objective"])


def ratios(results, method, start):
    """Seconds of a peer over those that hamshoot takes to its objective, and the end's share."""
    found = []
    for seed in range(5):
        ours, other = best(results, "hamshoot", seed, start), best(results, method, seed, start)
        reached = next(t for t, J in ours["trace"] if other["objective"] >= J)
        found.append((other["seconds"] / reached, ours["objective"] / other["objective"]))
    return [median(column) for column in zip(*found, strict=True)]


def test_the_page_says_of_large_networks_what_was_measured():
    text = section("Large networks and many samples", "docs/guide/large.md")
    results = benchmark("paper_size")
    peers = ("adam", "lbfgsb", "torch_lbfgs")
    path, identity = ({peer: ratios(results, peer, start) for peer in peers}
                      for start in ("path", "identity"))
    for peer in peers:
        assert f"1/{path[peer][0]:.0f}" in text, peer
    short = []
    for seed in range(5):
        ended = min(r["objective"] for r in results["runs"] if (
            r["method"], r["seed"], r["start"], r.get("epochs")) == ("adam", seed, "path", 1000))
        took = next(r["seconds"] for r in results["runs"] if r["objective"] == ended)
        trace = best(results, "hamshoot", seed, "path")["trace"]
        short.append(took / next(t for t, J in trace if ended >= J))
    assert f"the one of 1000 epochs in 1/{median(short):.0f}" in text
    assert ("From the identity start it is " + "1/{:.0f}, 1/{:.0f} and 1/{:.0f}".format(
        *(identity[peer][0] for peer in peers))) in text
    assert f"at {path['adam'][1]:.2f} of Adam's" in text
    assert {f"{path[peer][1]:.2f}" for peer in peers[1:]} == {"0.98"}
    assert "0.98 of either L-BFGS's" in text
    ours = [r for r in results["runs"] if r["method"] == "hamshoot"]
    assert {r["status"] for r in ours} == {"TIME_LIMIT"}  # "none of its networks has converged"
    shares = [min(row["limit"], row["adam_seconds"]) / row["hamshoot_reaches_adam"]
              for row in results["grid"]]
    assert f"between {min(shares):.1f} and {max(shares):.0f} over six problems" in text
    assert len(shares) == 6
    took = [row["adam_seconds"] for row in results["grid"]]
    assert {row["limit"] for row in results["grid"]} == {30}
    assert f"it took {min(took):.0f} to {max(took):.0f} s" in text


def test_the_page_says_how_far_large_networks_are_carried():
    text = section("Large networks and many samples", "docs/guide/large.md")
    results = benchmark("paper_size")
    ends = {epsilon: [r for r in results["ends"] if r["epsilon"] == epsilon]
            for epsilon in (0.0, 0.01)}  # ReLU down its ladder, and smooth
    assert all(r["relative_gradient"] <= 1e-4 and r["status"] == "FLAT"
               for rows in ends.values() for r in rows)
    seconds = [r["cpu_seconds"] for r in ends[0.01]]
    assert f"after {min(seconds):.0f} to {max(seconds):.0f} s of CPU" in text
    assert f"({len(seconds)} seeds)" in text
    held = [sorted(row[name] for row in ends[0.0]) for name in (
        "stationarity", "kinks", "cpu_seconds")]
    stationarity, kinks, seconds = ((values[0], values[-1]) for values in held)
    assert (f"on {len(held[0])} seeds to between {stationarity[0]:.4f} and {stationarity[1]:.4f}, "
            f"with {kinks[0]} to {kinks[1]} of them, after {seconds[0]:.0f} to {seconds[1]:.0f} s"
            ) in text
    from hamshoot import DirectSingleShooting

    assert f"`kink_tol` ({DirectSingleShooting(layers=20).kink_tol:.0e})".replace("e-0", "e-") \
        in text


def test_the_page_says_of_many_samples_what_was_measured():
    text = section("Large networks and many samples", "docs/guide/large.md")
    results = benchmark("samples")
    held = {r["samples"]: r for r in results["sizes"] if not r["mapped"]}
    times = [f"{held[n]['float32']['gradient']:.2g}" for n in (1000, 10_000, 100_000)]
    assert "{}, {} and {} s".format(*times) in text
    most = max(results["sizes"], key=lambda r: r["peak_gigabytes"])
    assert (most["samples"], most["stored"], held[100_000]["stored"]) == (10_000, True, False)
    assert f"is {most['peak_gigabytes']:.1f} GB" in text
    solve, = results["solves"]
    assert solve["status"] == "TIME_LIMIT"
    assert solve["peak_gigabytes"] < 0.75
    assert f"{solve['time_limit']:.0f} seconds ended it at J = {solve['objective']:.3f}" in text
    assert f"stationarity {solve['stationarity']:.0f}" in text


# -- definitions -----------------------------------------------------------------------------------


def texts(stem):
    """Everything that is said of a demo: its findings, its entry, and its rows of claims."""
    claims = [f"{found} {verdict}" for _, found, verdict, where in ROWS if f"({stem}.py)" in where]
    return [*recorded(stem)["findings"], *sentences(entry(stem)), *claims]


def named(stem, record, name):
    """Rows of a record by the name under which "ended" counts them."""
    number = stem[:2]
    if number == "01":
        return [seed["rows"][name] for seed in record["seeds"]]
    if number == "02":
        return {"geodesic": record["geodesics"], "optimal control": record["meshes"],
                "gradient descent": [record["beside"]["gradient descent"]]}[name]
    if number == "03":
        return [record["networks"][name]]
    if number == "07" and name == "single shooting":
        return record["wide"]
    if number == "08":
        method, *noise = name.split(", ")
        if noise == ["noise"]:
            return [row for row in record["decays"] if row["method"] == method]
        return [row for row in record["networks"]
                if (row["method"], row["share"]) == (method, 4 if noise else 1)]
    if number == "11":
        short, data = name.split(" on ")
        return [row for row in record["fits"] if "objective" in row and row["data"] == data
                and row["method"] == f"Leaky ResNet, {short}"]
    if number == "13":
        return [row["trained" if "trained" in name else "finished"] for row in record["rows"]]
    if number == "14":
        return record["rows"]
    if number == "15":
        return record["rows" if "left out" in name else "spreads"]
    if number == "17":
        return [row for row in record["rows"] if row["variant"] == name]
    if number == "16":
        return record["map"]["rows"] if name == "networks" else \
            record["decays"]["points"] + record["depths"]["points"]
    if name == "exact geodesic":
        return [row for row in rows(record) if row.get("method", name) == name]
    return [row for row in record["networks"] if row["method"] == name]


@pytest.mark.parametrize("stem", SCRIPTS)
def test_how_the_networks_ended_is_that_of_the_rows(stem):
    record = recorded(stem)
    for name, how in record["ended"].items():
        found = [row["status"].upper() for row in named(stem, record, name)]
        assert how["networks"] == len(found) > 0, name
        assert how["converged"] == found.count("CONVERGED")
        assert how["statuses"] == {status: found.count(status) for status in set(found)}
        values = [row.get("stationarity") for row in named(stem, record, name)]
        if None in values:
            assert how["stationarity"] is None
        else:
            assert how["stationarity"] == pytest.approx(
                [min(values), median(values), max(values)], rel=1e-5)


@pytest.mark.parametrize("stem", SCRIPTS)
def test_nothing_is_called_optimal_that_has_not_converged(stem):
    assert called_optimal_wrongly(texts(stem), recorded(stem)) == []


@pytest.mark.parametrize("stem", SCRIPTS)
def test_how_many_converged_is_said_where_some_did_not(stem):
    record = recorded(stem)
    for name, how in record["ended"].items():
        if how["converged"] < how["networks"] and "TRAINED" not in how["statuses"]:
            words = f"{how['converged'] or 'none'} of {how['networks']} converged"
            assert any(words in sentence for sentence in record["findings"]), name
            # Continuous paths are stationary by construction, and say so.
            assert how["stationarity"] is None or any(
                (how["stationarity"][2] == 0 and "stationary by construction" in s)
                or f"stationarity {how['stationarity'][1]:.3g}" in s for s in record["findings"])
    if any("TRAINED" not in how["statuses"] and how["converged"] == 0
           for how in record["ended"].values()):
        assert re.search("(?i)none of|not converged|no fit", " ".join(entry(stem).split()))


@pytest.mark.parametrize("stem", SCRIPTS)
def test_a_strict_local_minimum_is_named_only_beside_its_proof(stem):
    assert called_minimum_wrongly(texts(stem), recorded(stem)) == []
    # The README names the verdict, and says what it means.
    assert "strict local minim" not in README.replace("*strict local minimum (proved)*", "")


@pytest.mark.parametrize("stem", [stem for stem in SCRIPTS if stem != IDENTITY])
def test_a_rank_says_which_estimate_it_is(stem):
    assert rank_without_its_estimate(texts(stem)) == []


def test_paths_that_are_called_exact_keep_their_hamiltonian():
    seen = 0
    for stem in SCRIPTS:
        record = recorded(stem)
        paths = [row for key in ("geodesics", "paths", "teacher", "one_sample", "linear",
                                 "nonlinear") for row in record.get(key, [])]
        paths += [row for found in record.get("folds", {}).values() for row in found]
        for row in paths:
            drift = row.get("drift", row.get("flatness"))
            if drift is not None:
                seen += 1
                assert drift <= EXACT
            elif "objective" in row:
                assert row["status"] == "CONVERGED"
    assert seen > 100


def test_the_readme_calls_nothing_optimal_beside_a_measured_number():
    prose = "\n".join(line for line in README.split("```")[::2]
                      for line in line.splitlines() if not line.startswith("|"))
    for paragraph in prose.split("\n\n"):
        for sentence in sentences(paragraph):
            if OPTIMAL.search(sentence) and not sentence.startswith("#"):
                assert numbers_of(sentence) == [], sentence
    captions = re.findall(r"!\[([^\]]*)\]", README)
    assert len(captions) >= 3
    assert [caption for caption in captions if OPTIMAL.search(caption)] == []


def test_the_checks_notice_a_network_that_did_not_converge():
    record = recorded("02_geodesics_in_depth")
    assert any(OPTIMAL.search(sentence) for sentence in record["findings"])
    assert unconverged(record) == []
    tampered = copy.deepcopy(record)
    tampered["beside"]["optimal control"]["status"] = "max_iter"
    assert called_optimal_wrongly(record["findings"], record) == []
    assert called_optimal_wrongly(record["findings"], tampered) != []
    denied = ["The optimal network, not converged, has J = 1."]
    assert called_optimal_wrongly(denied, tampered) == []
    for claim in ("optimal networks have rank 3", "the exact optimum", "two optima", "Optimal, 20"):
        assert called_optimal_wrongly([claim], tampered) == [claim]


def test_the_checks_notice_a_minimum_that_is_not_proved():
    proved, tried = "strict local minimum (proved): 1", "no descent found in 9 tries: 2"
    record = [{"status": "CONVERGED", "second_order": verdict} for verdict in (proved, tried)]
    said = "Certificates: 1 “strict local minimum (proved)”; 1 “no descent found in 9 tries”."
    assert called_minimum_wrongly([said], record) == []
    for wrong in ("All are strict local minima.", said.replace("1 “strict", "2 “strict"),
                  "1 “strict local minimum” of 2."):
        assert called_minimum_wrongly([wrong], record) == [wrong]
