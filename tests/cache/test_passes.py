"""What makes a second pass, what does not, and that scores are the same either way."""

from __future__ import annotations

import os
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from _cached import Net, backbone, data, seen, vectors
from lightning.pytorch import Trainer
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lightning_transfer import screen
from lightning_transfer.backbones import Backbone, LayeredBackbone, ModuleBackbone, PrecomputedFeatures
from lightning_transfer.cache import CachedPasses, FeatureCache, store
from lightning_transfer.data import ImageFolder, Samples
from lightning_transfer.screening import relate, screen_layers
from lightning_transfer.screening.duplicates import NOTES


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def lines_are_errors():
    """No line is said unless a test asks for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(not cached|cache of features is not|Features are not).*")
        yield


def run(cache, net, of, **options):
    """One pass with a cache: how many samples the network saw."""
    seen(net)
    CachedPasses(cache, options.pop("cache_key", None))(net, of, keep=["features"], **options)
    return seen(net)


def test_everything_but_the_labels_makes_a_pass_of_its_own(cache, monkeypatch):
    net = backbone()
    inputs, labels = vectors()
    assert run(cache, net, Samples((inputs, labels))) == 30
    assert run(cache, net, Samples((inputs.clone(), labels))) == 0
    assert run(cache, net, Samples((inputs, labels.flip(0)))) == 0
    assert run(cache, net, Samples((inputs, labels.double() / 7))) == 0

    changed = inputs.clone()
    changed[17, 3] += 1e-6
    assert run(cache, net, Samples((changed, labels))) == 30
    assert run(cache, net, Samples((inputs[torch.randperm(30)], labels))) == 30
    assert run(cache, net, data(), max_samples=20) == 20
    assert run(cache, net, data(), max_samples=20, seed=1) == 20
    assert run(cache, net, data(), max_samples=20) == 0
    assert run(cache, net, data(val_fraction=0.5), split="val") == 15
    assert run(cache, net, data(), trainer={"precision": "bf16-true"}) == 30
    assert run(cache, net, data(), trainer={"precision": "bf16-mixed"}) == 30
    assert run(cache, net, data(), optimize=["channels_last"]) == 30

    with torch.no_grad():
        net.module.body.weight[0, 0] += 1e-6
    assert run(cache, net, data()) == 30
    assert run(cache, backbone(), data()) == 0  # a fresh network, whose weights are those of the first
    net = backbone(layer="body")
    assert run(cache, net, data()) == 30
    assert run(cache, net, data()) == 0
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert run(cache, net, data()) == 30


def test_code_that_changes_beside_the_weights_makes_a_pass_of_its_own(cache):
    net, changed = backbone(), backbone()
    changed.module.slope = 1.01  # nothing that a fingerprint of weights and structure shows
    assert net.fingerprint() == changed.fingerprint()
    assert [run(cache, one, data()) for one in (net, changed, net, changed)] == [30, 30, 0, 0]


def picture_net(transform) -> ModuleBackbone:
    return ModuleBackbone(Net(48), (3, 4, 4), name="net", transform=transform, preprocessing=None)


class Cut:
    """A transform of nothing that its text would show."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __repr__(self) -> str:
        return "Cut()"

    def __call__(self, picture):
        pixels = np.asarray(picture.crop((0, 0, self.side, self.side)).resize((4, 4)))
        return torch.from_numpy(pixels / 255).float().permute(2, 0, 1)


class Jitter(Cut):
    def __call__(self, picture):
        return super().__call__(picture) + torch.rand(1)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


def pictures(folder, **kwargs):
    return ImageFolder(folder, image_size=8, val_fraction=0, test_fraction=0, **kwargs)


def test_one_pixel_of_a_folder_and_a_changed_transform_are_noticed(cache, folder):
    net = picture_net(Cut(8))
    assert [run(cache, net, pictures(folder)) for _ in range(2)] == [12, 0]
    assert run(cache, picture_net(Cut(7)), pictures(folder)) == 12
    (folder / "a").rename(folder / "A")  # another name of a class is another label
    assert run(cache, net, pictures(folder)) == 0
    path = folder / "b" / "05.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[7, 7, 2] ^= 1
    Image.fromarray(pixels).save(path)
    assert run(cache, net, pictures(folder)) == 12


def test_a_transform_that_draws_at_random_is_not_cached(cache, folder):
    net = picture_net(Jitter(8))
    with pytest.warns(UserWarning, match="net are not cached: its transform gives different values"):
        assert run(cache, net, pictures(folder)) == 12
    assert cache.entries() == []


def test_scores_from_the_cache_are_equal_to_the_last_bit(cache):
    net, other = backbone(), backbone(layer="middle")
    options = {"metrics": ["logme", "h_score", "leep", "parc"], "error_bars": True, "reference": data(24)}
    without = screen([net, other], data(60), cache=False, **options)
    first = screen([net, other], data(60), cache=cache, **options)
    seen(net)
    again = screen([net, other], data(60), cache=cache, **options)
    assert seen(net) == 0
    for board in (first, again):
        for row, expected in zip(board.rows, without.rows, strict=True):
            assert row.scores == expected.scores
            assert row.standard_errors == expected.standard_errors
            assert (row.remarks, row.parts, row.status) == (expected.remarks, expected.parts, expected.status)
        assert board.info == without.info
        assert board.settings == without.settings
    assert [row.cached for row in first.rows] == [False, False]
    assert [row.cached for row in again.rows] == [True, True]
    assert [row.images_per_second for row in again.rows] == [row.images_per_second for row in first.rows]
    assert "from the cache" in str(again)
    assert "from the cache" not in str(first)


def test_a_warm_screen_counts_no_operations_and_runs_no_trainer(cache, monkeypatch):
    options = {"metrics": ["logme", "leep"], "cache": cache, "trainer": {"accelerator": "cpu"}}
    first = screen(backbone(), data(60), **options).rows[0]
    rows = [screen(backbone(), data(60), progress=True, **options).rows[0]]  # the bar is a Trainer's
    for owner, name in ((Trainer, "predict"), (Backbone, "cost")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("no need of that"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)  # a bar for milliseconds is no help
    rows.append(screen(backbone(), data(60), **options).rows[0])
    for row in rows:
        assert (row.cached, row.scores, row.flops, row.parameters) == (
            True,
            first.scores,
            first.flops,
            first.parameters,
        )
    assert first.flops > 0


def test_another_score_a_bound_and_layers_need_no_second_pass(cache):
    net = backbone()
    screen(net, data(60), "logme", cache=cache)
    assert seen(net) == 60
    screen(net, data(60), ["h_score", "leep"], error_bars=True, cache=cache)
    screen(net, data(60), "logme", reference=data(60), cache=cache)
    relate(net, data(60), data(60), baselines=0, cache=cache)
    assert seen(net) == 0

    layers = screen_layers(net, data(60), "logme", cache=cache)
    assert seen(net) == 60
    again = screen_layers(net, data(60), "h_score", layers=["module.middle"], cache=cache)
    assert [row.backbone for row in again.rows] == ["module.middle", "features"]
    screen_layers(net, data(60), "leep", cache=cache)
    alone = screen(net, data(60), "logme", cache=cache)
    assert seen(net) == 0
    assert alone.rows[0].scores == layers["features"].scores
    assert len(cache.entries()) == 1  # that of the layers holds what the first one held


def test_features_of_layers_are_those_of_the_pass(cache):
    layered = LayeredBackbone(backbone(), "all")
    passes = CachedPasses(cache)
    first, again = (passes(layered, data(), keep=["features", "source_outputs", "labels"]) for _ in range(2))
    assert (first.cached, again.cached) == (False, True)
    assert all(torch.equal(first.kept[name], again.kept[name]) for name in first.kept)
    assert again.seconds == first.seconds
    assert again.num_samples == 30


def test_double_precision_stays(cache):
    net = ModuleBackbone(Net().double(), (12,), name="net", preprocessing=None)
    results = [CachedPasses(cache)(net, data(), keep=["features"]) for _ in range(2)]
    assert [result.kept["features"].dtype for result in results] == [torch.float64] * 2
    assert torch.equal(*(result.kept["features"] for result in results))


def test_rows_from_rounded_features_say_how_far_they_are_off(tmp_path):
    cache = FeatureCache(tmp_path, dtype="float16")
    boards = [screen(backbone(), data(60), "logme", cache=cache) for _ in range(2)]
    assert boards[0].rows[0].remarks == ()
    assert boards[1].rows[0].remarks[0].startswith("features are rounded to float16 in the cache (relative error 0.000")
    assert boards[1].rows[0].scores["logme"] == pytest.approx(boards[0].rows[0].scores["logme"], rel=1e-2)
    with pytest.warns(UserWarning, match="features are rounded to float16") as said:
        relate(backbone(), data(60), data(60), baselines=0, cache=cache)
    assert [str(line.message).partition(":")[0] for line in said] == ["reference", "target"]


def test_repeated_samples_are_remarked_on_from_the_cache_too(cache):
    inputs, labels = vectors(40)
    inputs[20:] = inputs[:20]
    relate(backbone(), data(), Samples((inputs, labels)), baselines=0, cache=cache)
    net = backbone()
    boards = [screen(net, Samples((inputs, labels)), "knn_accuracy", cache=used) for used in (cache, False)]
    assert boards[0].rows[0].cached
    assert boards[0].info["notes"] == boards[1].info["notes"] != []


def test_a_damaged_entry_is_rebuilt(cache):
    net = backbone()
    assert run(cache, net, data()) == 30
    shard = next(cache.folder.rglob("rank0-0.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-20])
    assert [run(cache, net, data()) for _ in range(2)] == [30, 0]


def test_a_pass_that_fails_leaves_nothing(cache):
    net = backbone()
    net.module.body.register_forward_hook(lambda _module, args, _output: 1 / (len(args[0]) != 6) and None)
    with pytest.raises(RuntimeError, match="batch 3"):
        run(cache, net, data())
    assert cache.entries() == []
    assert not list(cache.folder.rglob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_said_once_and_the_screen_goes_on(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="Features are not written to") as said:
        board = screen([backbone(), backbone(layer="body")], data(60), "logme", cache=tmp_path / "file" / "cache")
    assert len([line for line in said if "not written" in str(line.message)]) == 1
    assert [row.status for row in board.rows] == ["ok", "ok"]


def _occupy(name, make):
    def damage(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return damage


def _note(cache, **notes):
    """Entries whose notes are not what this package writes."""
    for path in cache.folder.rglob("entry.json"):
        manifest = store.read_json(path)
        del manifest["checksum"]
        path.write_text(store._encode(manifest | {"notes": notes}))


@pytest.mark.parametrize(
    "make", [os.mkdir, os.mkfifo, lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to(path)]
)
@pytest.mark.parametrize("name", [".lock", "files.sqlite", "features", "unfinished", "features/aa"])
def test_whatever_stands_in_the_way_costs_a_line_at_most(tmp_path, folder, name, make):
    cache = FeatureCache(tmp_path / "cache")
    cache.folder.mkdir()
    _occupy(name, make)(cache.folder)
    net = picture_net(Cut(8))
    rows = []
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            rows.append(screen([net, net], pictures(folder), "logme", cache=cache).rows[0])
        lines = [str(line.message) for line in said if "eatures" in str(line.message)]
        assert len(lines) <= 1, lines
    assert [row.status for row in rows] == ["ok", "ok"]
    assert rows[0].scores == rows[1].scores
    assert cache.entries() == [] or rows[1].cached
    if name != ".lock":
        cache.clear()


@pytest.mark.parametrize("notes", [{"near_duplicates": "x", "flops": []}, {"near_duplicates": 7.0, "flops": -5}])
def test_notes_of_an_entry_are_checked(cache, notes):
    first = screen(backbone(), data(60), "logme", cache=cache).rows[0]
    _note(cache, version=NOTES, **notes)
    again = screen(backbone(), data(60), "logme", cache=cache)
    assert again.rows[0].cached
    assert "near_duplicates" not in again.info
    assert again.rows[0].flops == first.flops > 0


@pytest.mark.parametrize("notes", [{}, {"version": NOTES - 1}, {"version": str(NOTES)}])
def test_notes_of_another_version_are_made_anew(cache, notes):
    net = backbone()
    screen(net, data(60), "logme", cache=cache)
    _note(cache, near_duplicates=0.5, **notes)
    seen(net)
    assert "near_duplicates" not in screen(net, data(60), "logme", cache=cache).info
    assert seen(net) == 60
    assert len(cache.entries()) == 1
    screen(net, data(60), "logme", cache=cache)
    assert run(cache, net, data(60)) == 0  # whoever wants no notes takes any


def test_features_without_notes_do_for_nobody_who_wants_them(cache):
    net = backbone()
    inputs, labels = vectors(30)
    twice = Samples((torch.cat([inputs, inputs]), torch.cat([labels, labels])), batch_size=8)
    assert run(cache, net, twice) == 60
    assert screen(net, twice, "logme", cache=cache).info["near_duplicates"] == 1.0
    assert seen(net) == 60


def test_a_folder_that_goes_during_the_pass_costs_a_line(cache):
    net = backbone()
    net.module.body.register_forward_hook(lambda *_: shutil.rmtree(cache.folder) if cache.folder.is_dir() else None)
    with pytest.warns(UserWarning, match="Features are not written to"):
        board = screen(net, data(60), "logme", cache=cache)
    assert board.rows[0].status == "ok"


def test_a_full_disk_is_said_and_the_scores_are_there(cache, monkeypatch):
    monkeypatch.setattr(store, "_save", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.warns(UserWarning, match="not written .* No space left"):
        board = screen(backbone(), data(60), "logme", cache=cache)
    assert board.rows[0].status == "ok"
    assert cache.size() < 1000


def test_features_that_are_given_are_not_stored_again(cache):
    inputs, labels = vectors()
    screen({"given": inputs}, labels, "logme", cache=cache)
    CachedPasses(cache)(PrecomputedFeatures(inputs), [(torch.arange(30), labels)])
    assert cache.entries() == []


class Known(Dataset):
    """A data set that says what it holds."""

    def __init__(self, name: str | None = None) -> None:
        self.values, self.labels = vectors()
        if name is not None:
            self.fingerprint = lambda: name

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return self.values[index], self.labels[index]


class Noisy(Known):
    def __getitem__(self, index):
        return self.values[index] + torch.rand(12), self.labels[index]


class Scaled(TensorDataset):
    """A known kind of data set that gives something else than its tensors."""

    def __getitem__(self, index):
        return self.tensors[0][index] * 2, self.tensors[1][index]


class Photographs(Known):
    """Pillow's pictures, which PyTorch's own collate function does not take."""

    def __getitem__(self, index):
        return Image.new("RGB", (6, 6), (8 * index, 0, 0)), self.labels[index]


class Endless(IterableDataset):
    def __iter__(self):
        return zip(*vectors(), strict=True)


def test_loaders_of_known_data_are_cached_whatever_their_order(cache):
    net = backbone()
    dataset = TensorDataset(*vectors())
    part = Subset(dataset, range(20))
    flipped = TensorDataset(dataset.tensors[0], dataset.tensors[1].flip(0))
    for loader, expected in (
        (DataLoader(dataset, 8, shuffle=True), 30),
        (DataLoader(dataset, 8, shuffle=True), 0),
        (DataLoader(dataset, 5), 0),
        (DataLoader(flipped, 8), 0),
        (DataLoader(Subset(dataset, range(30)), 8), 0),
        (DataLoader(part, 8), 20),
        (DataLoader(ConcatDataset([part, part]), 8, shuffle=True), 40),
        (DataLoader(ConcatDataset([part, part]), 8), 0),
        (DataLoader(Known("v1"), 8), 30),
        (DataLoader(Known("v1"), 8), 0),
        (DataLoader(Known("v2"), 8), 30),
        (DataLoader(list(zip(*vectors(), strict=True)), 8), 30),
        (DataLoader(list(zip(*vectors(), strict=True)), 8, shuffle=True), 0),
    ):
        assert run(cache, net, loader) == expected


def test_groups_and_further_columns_of_a_loader_are_no_inputs(cache):
    net = backbone()
    inputs, labels = vectors()
    groups = torch.arange(30) // 3

    def loader(*columns):
        return DataLoader(TensorDataset(*columns), 8)

    for of, keys, expected in (
        (loader(inputs, labels, groups), {"group_key": 2}, 30),
        (loader(inputs, labels, groups.flip(0)), {"group_key": 2}, 0),
        (loader(inputs, labels.flip(0), groups), {"group_key": -1}, 0),
        (loader(groups, labels, inputs), {"input_key": 2, "group_key": 0}, 0),
        (loader(inputs, groups, labels), {"label_key": 2, "group_key": 1}, 0),
        (loader(inputs, labels), {}, 0),
        (loader(inputs + 1, labels, groups), {"group_key": 2}, 30),
        (list(zip(inputs, labels, groups, strict=True)), {"group_key": 2}, 30),
        (list(zip(inputs, labels, groups + 1, strict=True)), {"group_key": 2}, 0),
    ):
        of = DataLoader(of, 8) if isinstance(of, list) else of
        assert run(cache, net, of, **keys) == expected


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DataLoader(Known(), 8), "a Known does not say what it holds"),
        (lambda: DataLoader(Scaled(*vectors()), 8), "a Scaled does not say what it holds"),
        (lambda: DataLoader(Noisy("v"), 8), "different values when the same sample is read twice"),
        (lambda: DataLoader(Endless(), 8), "a stream or an iterable"),
        (lambda: [tuple(vectors())], "a stream or an iterable"),
        (lambda: DataLoader(TensorDataset(*vectors()), 8, collate_fn=torch.utils.data.default_collate.__call__),
         "its `collate_fn` may change the batches"),
        (lambda: Samples(Known()), "a Known does not say what it holds"),
    ],
)  # fmt: skip
def test_data_that_do_not_say_what_they_hold_need_a_key(cache, make, reason):
    net = backbone()
    with pytest.warns(UserWarning, match=f"not cached: .*{reason}.*`cache_key` gives it a name"):
        assert run(cache, net, make()) == 30
    assert cache.entries() == []
    assert [run(cache, net, make(), cache_key=key) for key in ("a", "a", "b")] == [30, 0, 30]
    assert run(cache, net, make(), cache_key="a", role="reference") == 30


def test_labels_of_named_data_are_read_anew(cache):
    net, dataset = backbone(), Known()
    passes = CachedPasses(cache, "a")
    for labels in (dataset.labels, dataset.labels.flip(0), dataset.labels.double() / 7):
        dataset.labels = labels
        result = passes(net, DataLoader(dataset, 8), keep=["features"])
        kept = CachedPasses(cache, "a")(
            net, DataLoader(dataset, 8), keep=["targets" if labels.is_floating_point() else "labels"]
        )
        assert torch.equal(next(iter(kept.kept.values())), labels)
        assert kept.cached
        assert result.num_samples == 30
    assert seen(net) == 30


def test_pictures_of_named_data_are_not_prepared_to_read_their_labels(cache):
    net = picture_net(Cut(6))
    assert [run(cache, net, DataLoader(Photographs(), 8), cache_key="a") for _ in range(2)] == [30, 0]


def test_a_named_set_of_another_size_is_read_anew(cache):
    net = backbone()
    assert run(cache, net, [vectors(30)], cache_key="a") == 30
    assert run(cache, net, [vectors(27)], cache_key="a") == 27


def test_an_iterator_is_read_once_only(cache):
    with pytest.warns(UserWarning, match=r"can be read once only\.$"):
        assert run(cache, backbone(), iter([vectors()]), cache_key="a") == 30


@pytest.mark.parametrize("key", ["", 3])
def test_a_key_is_a_name(key):
    with pytest.raises(ValueError, match="`cache_key` to be a name of the data, but got"):
        screen(backbone(), data(), "logme", cache_key=key)


def test_wrong_arguments_are_refused_as_without_a_cache(cache):
    with pytest.raises(ValueError, match="`split` to name a split"):
        run(cache, backbone(), data(), split="val")
    with pytest.raises(ValueError, match="max_samples"):
        run(cache, backbone(), data(), max_samples=0)
