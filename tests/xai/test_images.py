"""Images with known evidence, explainers of images against closed forms, measures against loops."""

from copy import deepcopy
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from compendium.models import set_threads
from compendium.xai import images
from compendium.xai.studies import image_explainers

K = len(images.EVIDENCE)


@pytest.fixture(autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def trained():
    """(network, images it was not trained on), small and quick."""
    set_threads(1)
    data = images.glyphs(900, 0)
    return images.cnn(data.x, data.y, width=8, epochs=12, rate=4e-3), images.glyphs(60, 1)


@pytest.fixture(scope="module")
def linear():
    """A convolution without activation, then a linear layer: every output is linear in the image."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), nn.Linear(3 * 64, 4)).eval().requires_grad_(False)


def batch(n=3, channels=1, size=8, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, channels, size, size)).astype(np.float32)


def weights(model, x, target):
    """(n, c, h, w) slope of a linear network, by sending unit images through it."""
    one = torch.eye(x[0].size).reshape(-1, *x.shape[1:])
    zero = model(torch.zeros_like(one[:1]))
    return np.stack([(model(one) - zero)[:, t].reshape(x.shape[1:]).numpy() for t in target])


# Images -----------------------------------------------------------------------------------------------------------


def test_glyph_images_are_what_they_say():
    found = images.glyphs(200, 3, noise=0)
    bitmaps = images.bitmaps()
    assert found.x.dtype == np.float32
    for i in range(200):
        rows, columns = np.nonzero(found.mask[i])
        assert np.ptp(rows) == np.ptp(columns) == 6
        assert found.mask[i].sum() == 49
        inside = found.x[i, 0][found.mask[i]].reshape(7, 7)
        np.testing.assert_array_equal(inside > 0, bitmaps[images.EVIDENCE[found.y[i]]] > 0)
        assert not (found.mask[i] & found.mark[i]).any()
        row, column = divmod(int(found.hint[i]), 2)
        corner = found.x[i, 0][-2 * row : 2 if row == 0 else None, -2 * column : 2 if column == 0 else None]
        np.testing.assert_array_equal(corner, np.ones((2, 2)))
    assert (found.x[:, 0][~found.shapes] == 0).all()  # nothing is drawn outside the boxes of shapes
    assert set(found.y) == set(found.hint) == set(range(K))
    assert (found.other == -1).all()
    assert not found.other_mask.any()


def test_shortcut_ties_the_mark_to_the_class():
    free, half, tied = (images.glyphs(600, 4, shortcut=s) for s in (0, 0.5, 1))
    assert (free.hint == free.y).mean() == pytest.approx(1 / K, abs=0.06)
    assert (half.hint == half.y).mean() == pytest.approx(0.5 + 0.5 / K, abs=0.06)
    assert (tied.hint == tied.y).all()


def test_two_evidence_glyphs_are_of_different_classes():
    found = images.glyphs(100, 5, evidence=2)
    assert (found.other != found.y).all()
    assert (found.other_mask.sum((1, 2)) == 49).all()
    assert not (found.mask & found.other_mask).any()


def test_rendering_and_training_are_deterministic():
    a, b, c = images.glyphs(20, 1), images.glyphs(20, 1), images.glyphs(20, 2)
    assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))
    assert not np.array_equal(a.x, c.x)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    m, n = (images.cnn(a.x, a.y, seed=1, width=2, epochs=1) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(m.state_dict().values(), n.state_dict().values(), strict=True))
    assert torch.equal(before, torch.get_rng_state())  # nobody else's random numbers are touched


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match="share"):
        images.glyphs(3, shortcut=2)
    with pytest.raises(ValueError, match="fit"):
        images.glyphs(3, evidence=2, distractors=8)
    with pytest.raises(ValueError, match="square"):
        images.cnn(np.zeros((3, 1, 4, 5)), [0, 1, 0])


def test_digits():
    x, y = images.digits(16)
    assert x.shape == (1797, 1, 16, 16)
    assert 0 <= x.min() < x.max() <= 1
    np.testing.assert_allclose(
        images.digits(8)[0][:, 0], __import__("sklearn.datasets").datasets.load_digits().images / 16
    )
    assert set(y) == set(range(10))


def test_networks_learn_and_are_plain(trained):
    model, test = trained
    assert (images.probabilities(model, test.x).argmax(1) == test.y).mean() > 0.9
    assert isinstance(model, nn.Sequential)
    assert not model.training
    pooled = images.untrained(3, 16, 5, pooled=True)
    assert pooled(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


# Explainers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", images.EXPLAINERS)
def test_shape_determinism_and_clean_hands(name, trained):
    model, test = trained
    explain = images.EXPLAINERS[name]
    before = deepcopy(model.state_dict())
    A = explain(model, test.x[:3], test.y[:3], seed=1)
    assert A.shape == (3, 1, 28, 28)
    assert A.dtype == float
    assert np.isfinite(A).all()
    np.testing.assert_array_equal(A, explain(model, test.x[:3], test.y[:3], seed=1))
    # A row does not depend on its neighbours.
    if name != "random" and name != "smoothgrad":
        np.testing.assert_allclose(explain(model, test.x[:1], test.y[:1], seed=1), A[:1], atol=1e-4)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


@pytest.mark.parametrize(
    "name", ["input x gradient", "integrated gradients", "deeplift", "gradient", "smoothgrad", "guided backprop"]
)
def test_closed_form_on_a_linear_network(name, linear):
    x, background, target = batch(), batch(4, seed=1), [0, 3, 1]
    w = weights(linear, x, target)
    A = images.EXPLAINERS[name](linear, x, target, background=background)
    slope = name in ("gradient", "smoothgrad", "guided backprop")
    np.testing.assert_allclose(A, w if slope else w * (x - background.mean(0)), atol=1e-5)


def test_occlusion_lime_and_shap_on_a_linear_network(linear):
    """Hiding a square takes w (x - background) away: that is its Shapley value, its weight in LIME, its occlusion."""
    x, target = batch(), [0, 3, 1]
    each = (weights(linear, x, target) * x)[:, 0]
    truth = np.kron(each.reshape(3, 2, 4, 2, 4).sum((2, 4)), np.ones((4, 4)))
    np.testing.assert_allclose(images.kernel_shap(linear, x, target, grid=2)[:, 0], truth, atol=1e-5)
    np.testing.assert_allclose(
        images.kernel_shap(linear, x, target, grid=4, samples=200)[:, 0].sum((1, 2)), 4 * each.sum((1, 2)), atol=1e-4
    )
    found = images.lime(linear, x, target, grid=2, samples=400, width=100)[:, 0]
    assert np.abs(found - truth).max() < 0.1 * np.abs(truth).max()  # the ridge shrinks
    np.testing.assert_allclose(images.occlusion(linear, x, target, window=4, stride=4)[:, 0], truth, atol=1e-5)


@pytest.mark.parametrize("samples", [14, 400])
def test_kernel_shap_is_the_shapley_value_of_squares(samples, trained):
    """All coalitions fit: exact, against the mean over all orders."""
    model, test = trained
    x, t = test.x[:2], test.y[:2]
    region = images.squares(28, 28, 2)

    def value(i, coalition):
        z = np.where(np.isin(region, list(coalition)), x[i, 0], 0)[None, None]
        return model(torch.as_tensor(z, dtype=torch.float32))[0, int(t[i])].item()

    A = images.kernel_shap(model, x, t, grid=2, samples=samples)
    for i in range(2):
        for k in range(4):
            gains = [value(i, o[: o.index(k) + 1]) - value(i, o[: o.index(k)]) for o in permutations(range(4))]
            np.testing.assert_allclose(A[i, 0][region == k], np.mean(gains), atol=1e-4)


def test_sampled_coalitions_have_the_kernel_and_their_complements():
    Z, weight = images.coalitions(16, 20_000, seed=0)
    assert np.array_equal(Z[: len(Z) // 2], 1 - Z[len(Z) // 2 :])
    assert (weight == 1).all()
    sizes = np.bincount(Z.sum(1).astype(int), minlength=17)[1:16] / len(Z)
    kernel = np.array([1 / (k * (16 - k)) for k in range(1, 16)])
    np.testing.assert_allclose(sizes, kernel / kernel.sum(), atol=0.01)
    exact, weight = images.coalitions(4, 100)
    assert len(np.unique(exact, axis=0)) == 14
    np.testing.assert_allclose(weight[exact.sum(1) == 2], 3 / (6 * 2 * 2))


def test_grad_cam_by_hand(trained):
    model, test = trained
    x, t = torch.as_tensor(test.x[:4]), torch.as_tensor(test.y[:4])
    last = max(i for i, m in enumerate(model) if isinstance(m, nn.Conv2d))
    maps = model[: last + 1](x).detach().requires_grad_()
    (g,) = torch.autograd.grad(model[last + 1 :](maps).gather(1, t[:, None]).sum(), maps)
    cam = (g.mean((2, 3), keepdim=True) * maps).sum(1).detach()  # (n, 7, 7)
    size = 28 / cam.shape[1]
    at = lambda k: np.clip((k + 0.5) / size - 0.5, 0, cam.shape[1] - 1)
    for signed in (False, True):
        coarse = (cam if signed else cam.clamp(min=0)).numpy()
        found = images.grad_cam(model, x, t, relu=not signed)
        for r, c in ((0, 0), (5, 17), (13, 27), (20, 9)):  # bilinear between centres of cells
            y0, x0 = int(at(r)), int(at(c))
            y1, x1 = min(y0 + 1, cam.shape[1] - 1), min(x0 + 1, cam.shape[1] - 1)
            u, v = at(r) - y0, at(c) - x0
            upper = (1 - v) * coarse[:, y0, x0] + v * coarse[:, y0, x1]
            lower = (1 - v) * coarse[:, y1, x0] + v * coarse[:, y1, x1]
            np.testing.assert_allclose(found[:, 0, r, c], (1 - u) * upper + u * lower, atol=1e-4)
    guided = images.guided_backprop(model, x, t)
    np.testing.assert_allclose(images.guided_grad_cam(model, x, t), guided * images.grad_cam(model, x, t), atol=1e-4)


def test_guided_backprop_by_hand():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.as_tensor(batch(2, size=4))
    hidden = model[1](x.flatten(1))
    back = model[3].weight[1].expand(2, -1).clamp(min=0) * (hidden > 0)
    expected = (back @ model[1].weight).reshape(2, 1, 4, 4).detach().numpy()
    np.testing.assert_allclose(images.guided_backprop(model, x, 1), expected, atol=1e-6)
    gap = (model(x) - model(x * 0))[:, 1].detach().numpy()  # and without pooling DeepLift is complete
    np.testing.assert_allclose(images.deeplift(model, x, 1).sum((1, 2, 3)), gap, atol=1e-5)


def test_completeness(trained):
    model, test = trained
    x, t = test.x[:4], test.y[:4]
    score = lambda v: model(torch.as_tensor(v)).gather(1, torch.as_tensor(t)[:, None])[:, 0].numpy()
    gap = score(x) - score(np.zeros_like(x))
    np.testing.assert_allclose(images.deeplift(model, x, t).sum((1, 2, 3)), gap, rtol=0.05, atol=0.05)  # max pooling
    np.testing.assert_allclose(
        images.integrated_gradients(model, x, t, steps=200).sum((1, 2, 3)), gap, rtol=0.03, atol=0.1
    )
    shap = images.kernel_shap(model, x, t)
    np.testing.assert_allclose(shap.sum((1, 2, 3)) / 16, gap, rtol=1e-3, atol=1e-3)  # 16 pixels a square


def test_relevance_here_is_relevance_there(trained):
    from compendium.xai.relevance import contrastive, relevance

    model, test = trained
    np.testing.assert_array_equal(images.relevance(model, test.x[:2], 1), relevance(model, test.x[:2], 1))
    np.testing.assert_array_equal(images.contrastive(model, test.x[:2], 1), contrastive(model, test.x[:2], 1))


@pytest.mark.parametrize("name", [n for n in images.EXPLAINERS if n not in images.CONTROLS])
def test_bad_input_is_refused(name, linear):
    explain, x = images.EXPLAINERS[name], batch()
    with pytest.raises(ValueError, match="0 to 3"):
        explain(linear, x, 4)
    with pytest.raises(ValueError, match="missing"):
        explain(linear, x * np.nan, 0)
    with pytest.raises(ValueError, match="must be images"):
        explain(linear, x[:, 0], 0)
    with pytest.raises(ValueError, match="background"):
        explain(linear, x, 0, background=batch(size=4))


# Measures ---------------------------------------------------------------------------------------------------------


def case(seed=0):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(5, 6, 6)).round(1)  # with ties
    mask = rng.random((5, 6, 6)) < 0.3
    mask[:, 0, 0], mask[:, 5, 5] = True, False
    return A, mask


def test_measures_against_loops():
    A, mask = case()
    for sign, strength in (("both", np.abs(A)), ("positive", A.clip(0))):
        found = {name: f(A, mask, sign=sign) for name, f in images.MEASURES.items()}
        for i in range(5):
            a, m = strength[i].ravel(), mask[i].ravel()
            assert found["auroc"][i] == pytest.approx(roc_auc_score(m, a))
            top = [j for j in range(36) if a[j] == a.max()]
            assert found["pointing"][i] == pytest.approx(np.mean([m[j] for j in top]))
            assert found["mass"][i] == pytest.approx(sum(a[j] for j in range(36) if m[j]) / sum(a))


def test_auroc_within():
    A, mask = case()
    within = mask | (np.random.default_rng(1).random(mask.shape) < 0.4)
    found = images.auroc(A, mask, within=within)
    for i in range(5):
        assert found[i] == pytest.approx(roc_auc_score(mask[i][within[i]], np.abs(A[i])[within[i]]))
    np.testing.assert_allclose(images.auroc(A, mask, within=np.ones_like(mask)), images.auroc(A, mask))
    with pytest.raises(ValueError, match="outside"):
        images.auroc(A, mask, within=mask)


def test_oracle_beats_random_beats_reversed_and_noise_degrades():
    found = images.glyphs(60, 2)
    oracle = found.mask.astype(float)
    rng = np.random.default_rng(0)
    for measure in images.MEASURES.values():
        levels = [measure(oracle + s * rng.random(oracle.shape), found.mask).mean() for s in (0, 1.5, 5, 50)]
        assert levels == sorted(levels, reverse=True)
        assert levels[0] == 1
        assert measure(1 - oracle, found.mask).max() == 0
    noise = images.noise(None, found.x, 0)
    assert images.auroc(noise, found.mask).mean() == pytest.approx(0.5, abs=0.03)
    assert images.mass(noise, found.mask).mean() == pytest.approx(49 / 784, abs=0.01)


def test_maps_of_zeros_have_chance_values():
    found = images.glyphs(3, 2)
    zero = np.zeros((3, 1, 28, 28))
    np.testing.assert_allclose(images.auroc(zero, found.mask), 0.5)
    np.testing.assert_allclose(images.pointing(zero, found.mask), 49 / 784)
    np.testing.assert_allclose(images.mass(zero, found.mask), 49 / 784)
    np.testing.assert_allclose(images.apart(zero, found.mask, found.mark), 0.5)


def test_apart():
    found = images.glyphs(10, 2, evidence=2)
    for_first = found.mask - 1.0 * found.other_mask
    np.testing.assert_array_equal(images.apart(for_first, found.mask, found.other_mask), 1)
    np.testing.assert_array_equal(images.apart(-for_first[:, None], found.mask, found.other_mask), 0)


def test_bad_maps_are_refused():
    A, mask = case()
    with pytest.raises(ValueError, match="fit"):
        images.auroc(A[:, :5], mask)
    with pytest.raises(ValueError, match="finite"):
        images.mass(A * np.nan, mask)
    with pytest.raises(ValueError, match="inside and outside"):
        images.pointing(A, mask & False)
    with pytest.raises(ValueError, match="sign"):
        images.pixels(A, "negative")
    with pytest.raises(ValueError, match="fit"):
        images.apart(A, mask[:2], mask[:2])


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("kind", ["zero", "mean", "blurred"])
def test_curves_against_a_loop(kind, insert, linear):
    x = batch(3)
    A = np.random.default_rng(2).normal(size=x.shape)
    target = np.array([1, 0, 3])
    found = images.curves(linear, x, A, target, baseline=kind, insert=insert, steps=4, sign="both")
    gone = images.absent(kind, x)
    for i in range(3):
        order = np.argsort(-np.abs(A[i, 0]).ravel(), kind="stable")
        for s in range(5):
            taken = order[: 16 * s]
            start, end = (gone, x) if insert else (x, gone)
            z = start[i, 0].ravel().copy()
            z[taken] = end[i, 0].ravel()[taken]
            p = images.probabilities(linear, z.reshape(1, 1, 8, 8))[0, target[i]]
            assert found[i, s] == pytest.approx(p, abs=1e-5)


def test_absent_and_bad_baselines(linear):
    x = batch()
    assert (images.absent("zero", x) == 0).all()
    np.testing.assert_allclose(images.absent("mean", x)[1], x.mean(0), rtol=1e-6)
    assert images.absent("blurred", x).var() < x.var()
    np.testing.assert_allclose(images.absent("blurred", np.ones((1, 1, 8, 8))), 1)
    with pytest.raises(ValueError, match="unknown baseline"):
        images.curves(linear, x, x, 0, baseline="grey")
    with pytest.raises(ValueError, match="fit"):
        images.curves(linear, x, x[:, :, :4], 0)


# Randomisation ----------------------------------------------------------------------------------------------------


def test_layers_are_drawn_anew_from_the_output_down(trained):
    model, _ = trained
    layers = [m for m in model if hasattr(m, "weight")]
    made = list(images.randomised(model, seed=3))
    assert len(made) == len(layers) == 5
    for k, (_, changed) in enumerate(made, 1):
        new = [m for m in changed if hasattr(m, "weight")]
        same = [torch.equal(a.weight, b.weight) for a, b in zip(layers, new, strict=True)]
        assert same == [True] * (5 - k) + [False] * k
    again = list(images.randomised(model, seed=3))
    assert all(torch.equal(a[1][0].weight, b[1][0].weight) for a, b in zip(made, again, strict=True))
    # Cascading: what was drawn stays as layers are added.
    assert torch.equal(made[0][1][-1].weight, made[-1][1][-1].weight)


def test_edges_by_hand():
    x = batch(2, channels=2, size=5)
    found = images.edges(None, x, 0)
    for i, c, r, k in ((0, 0, 2, 2), (1, 1, 1, 3)):
        p = x[i, c, r - 1 : r + 2, k - 1 : k + 2].astype(float)
        kernel = np.outer([-1, 0, 1], [1, 2, 1])
        assert found[i, c, r, k] == pytest.approx(np.hypot((p * kernel).sum(), (p * kernel.T).sum()))


def test_mprt_separates_edges_from_noise(trained):
    model, test = trained
    edge, noise = (images.mprt(images.EXPLAINERS[n], model, test.x[:8], test.y[:8]) for n in ("edges", "random"))
    assert [step["layers"] for step in edge] == list(range(6))
    for step in edge:
        np.testing.assert_allclose([step["spearman"], step["ssim"]], 1)
    assert all(np.abs(step["spearman"].mean()) < 0.1 for step in noise[1:])


def test_likeness_against_references():
    from scipy import stats as sps

    A, B = np.random.default_rng(0).normal(size=(2, 4, 10, 10)).round(1)
    for i in range(4):
        expected = sps.spearmanr(np.abs(A[i]).ravel(), np.abs(B[i]).ravel()).statistic
        assert images.spearman(A, B)[i] == pytest.approx(expected)
    assert np.isnan(images.spearman(A * 0, B)).all()
    scale = lambda v: (np.abs(v) - np.abs(v).min()) / np.ptp(np.abs(v))
    for i in range(4):  # structural similarity by windows, edges mirrored
        a, b = (np.pad(scale(v[i]), 1, mode="symmetric") for v in (A, B))
        values = []
        for r in range(10):
            for c in range(10):
                u, v = a[r : r + 3, c : c + 3], b[r : r + 3, c : c + 3]
                cov = ((u - u.mean()) * (v - v.mean())).mean()
                top = (2 * u.mean() * v.mean() + 1e-4) * (2 * cov + 9e-4)
                values.append(top / ((u.mean() ** 2 + v.mean() ** 2 + 1e-4) * (u.var() + v.var() + 9e-4)))
        assert images.ssim(A, B, window=3)[i] == pytest.approx(np.mean(values))
    np.testing.assert_allclose(images.ssim(A, A * 3), 1)


def test_studies_have_a_row_for_every_method(trained):
    model, test = trained
    few = images.Images(*(field[:2] for field in test))
    pairs = images.glyphs(2, 0, evidence=2)
    for rows in (
        image_explainers.evidence_study({"net": model}, few, pairs),
        image_explainers.shortcut_study({"net": model}, few),
        image_explainers.deletion_study("net", model, few.x, steps=4),
        image_explainers.randomisation_study("net", model, few.x, names=("gradient", "edges")),
    ):
        wanted = {"gradient", "edges"} if "layers" in rows[0] else set(images.EXPLAINERS)
        assert {row["explainer"] for row in rows} == wanted
        assert all(np.isfinite(row["value"]) for row in rows)


def test_values_that_are_missing_or_do_not_fit_are_refused(linear):
    x = np.random.default_rng(0).random((2, 1, 8, 8))
    box = np.zeros((2, 8, 8), bool)
    box[:, 2:4] = True
    wrong = {
        "every box needs pixels": lambda: images.apart(x, box, box & False),
        "maps must be finite": lambda: images.apart(x * np.nan, box, ~box),
        "of the same images": lambda: images.spearman(x, x[:1]),
        "maps must be of the": lambda: images.ssim(x, x[:, :, :7]),
        "`within` must be": lambda: images.auroc(x, box, within=(~box).transpose(1, 2, 0)),
        "maps must be numbers": lambda: images.pixels(x.astype(str)),
        "baseline holds missing": lambda: images.curves(linear, x, x, 0, baseline=x * np.nan),
        "X holds missing": lambda: images.probabilities(linear, x * np.nan),
        "X must be images": lambda: images.edges(linear, x[0], 0),
        "background holds missing": lambda: images.occlusion(linear, x, 0, background=x * np.nan),
        "background must be images": lambda: images.occlusion(linear, x, 0, background=x[:0]),
    }
    for match, call in wrong.items():
        with pytest.raises(ValueError, match=match):
            call()
