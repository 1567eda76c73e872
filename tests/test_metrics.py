"""The metrics in captum_pullback.study.metrics, where their values are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from scipy import stats
from torch import Tensor, nn

from captum_pullback.study import metrics
from captum_pullback.study.metrics import correlation
from captum_pullback.study.metrics.ablation import Ablation, features_of

LINE = torch.tensor([[1.0, 2.0, 3.0, 4.0]])


def linear(*weights: float) -> nn.Module:
    """One output, the sum of the inputs times these weights."""
    model = nn.Linear(len(weights), 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([weights], dtype=torch.float32))
    return model


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class TestCorrelation:
    def test_is_scipys(self) -> None:
        one, other = torch.randn(2, 3, 5, 20).round(decimals=1).double().numpy()
        tensors = torch.tensor(one), torch.tensor(other)
        for own, theirs in (
            (correlation.pearson, stats.pearsonr),
            (correlation.spearman, stats.spearmanr),
        ):
            expected = [[theirs(a, b)[0] for a, b in zip(*row, strict=True)]
                        for row in zip(one, other, strict=True)]  # fmt: skip
            assert own(*tensors).numpy() == pytest.approx(np.array(expected), abs=1e-12)
        assert np.array_equal(correlation.ranks(tensors[0]), stats.rankdata(one, axis=-1))

    def test_is_one_exactly_of_a_multiple_of_any_size(self) -> None:
        values = torch.tensor([1.0, -2.0, 4.0]).double()
        for factor in (1e-200, 1.0, 1e200):
            assert correlation.pearson(values, values * factor) == pytest.approx(1, abs=1e-15)
            assert correlation.pearson(values, -values * factor) == pytest.approx(-1, abs=1e-15)

    def test_is_not_defined_of_a_constant(self) -> None:
        assert correlation.pearson(torch.full((3,), 0.1), torch.arange(3.0)).isnan()
        assert correlation.spearman(torch.arange(3.0), torch.zeros(3)).isnan()


class TestFeatures:
    def test_cells_of_a_grid_that_does_not_divide_the_sides(self) -> None:
        found = features_of(torch.zeros(1, 2, 3, 5), 2)
        by_hand = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [2, 2, 2, 3, 3]])
        assert torch.equal(found, by_hand.expand(2, 3, 5))

    def test_a_mask_is_captums(self) -> None:
        found = features_of(torch.zeros(4, 2, 2), torch.tensor([[[7, 3], [3, 9]]]))
        assert found.tolist() == [[1, 0], [0, 2]]

    def test_each_entry_by_itself(self) -> None:
        assert features_of(torch.zeros(9, 2, 3), None).tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize("features", [0, 9, torch.zeros(2, 3, 8, 8), torch.zeros(7)])
    def test_what_does_not_fit_is_refused(self, features) -> None:
        with pytest.raises(ValueError, match=r"of shape \(3, 8, 8\)"):
            features_of(images(), features)


class TestAblation:
    def test_scores_are_those_of_inputs_made_by_hand(self) -> None:
        model, x, low = convolutional(), images(), torch.tensor([0.3, -1.0, 2.0]).view(3, 1, 1)
        chosen = torch.tensor([[True, False, False, False], [False, True, True, False]])
        found = Ablation(model, x, [1, 4, 0], baselines=low, features=2, at_once=2).without(chosen)
        first, second = x.clone(), x.clone()
        first[:, :, :4, :4] = low
        second[:, :, :4, 4:] = low
        second[:, :, 4:, :4] = low
        rows = torch.arange(3), torch.tensor([1, 4, 0])
        expected = torch.stack([model(first)[rows], model(second)[rows]], 1)
        torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-6)

    def test_further_arguments_go_with_their_examples(self) -> None:
        def model(x: Tensor, factor: Tensor, power: float) -> Tensor:
            return (x.sum(1) * factor) ** power

        x, factor = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([10.0, 100.0])
        ablation = Ablation(model, x, additional_forward_args=(factor, 2.0), at_once=1)
        assert ablation.plain.tolist() == [900, 490000]
        assert ablation.without(torch.eye(2).bool()).tolist() == [[400, 100], [160000, 90000]]

    def test_a_target_of_several_dimensions(self) -> None:
        x = torch.arange(8.0).view(2, 4)
        ablation = Ablation(lambda x: x.view(-1, 2, 2), x, [(1, 0), (0, 1)])
        assert ablation.plain.tolist() == [2, 5]
        assert ablation.without(torch.eye(4).bool()).tolist() == [[2, 2, 0, 2], [5, 0, 5, 5]]

    def test_contributions_and_derivatives(self) -> None:
        x, low = torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[0.5, 0.0, 1.0]])
        ablation = Ablation(
            linear(1, 1, 1), x, baselines=low, features=torch.tensor([0, 1, 0]))  # fmt: skip
        maps = [torch.tensor([[1.0, 2.0, 3.0]])] * 2
        found = ablation.sums(maps, [True, False])
        assert found.tolist() == [[[4, 2]], [[0.5 + 12, 4]]]


class TestFaithfulnessCorrelation:
    def test_by_hand(self) -> None:
        """Contributions 1 to 4 against a map that has 2 and 3 the wrong way round: 0.8."""
        maps = [LINE, torch.tensor([[1.0, 3.0, 2.0, 4.0]]), -LINE]
        for size in (1, 2, 3):
            found = metrics.faithfulness_correlation(
                linear(1, 1, 1, 1), LINE, maps, features=None, subset_size=size)  # fmt: skip
            assert found[:, 0].tolist() == pytest.approx([1, 0.8, -1], abs=1e-12)

    def test_a_linear_model_is_explained_perfectly_in_either_form(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
        x, low = images().double(), torch.randn(3, 1, 1).double()
        gradient = model[1].weight[1].view(1, 3, 8, 8)
        maps = [gradient, gradient * (x - low), gradient * (x - low)]
        found = metrics.faithfulness_correlation(
            model, x, maps, 1, baselines=low, subset_size=5,
            multiplies_by_inputs=[False, True, False],
        )  # fmt: skip
        assert found[:2].flatten().tolist() == pytest.approx([1] * 6, abs=1e-12)
        assert (found[2] < 0.9).all()

    def test_a_batch_is_its_examples_and_nothing_is_left_behind(self) -> None:
        model, x = convolutional(), images()
        maps = torch.randn(2, 3, 3, 8, 8)
        state = torch.get_rng_state()
        whole = metrics.faithfulness_correlation(model, x, maps, 1, subset_size=3)
        assert torch.equal(torch.get_rng_state(), state)
        parts = [
            metrics.faithfulness_correlation(
                model, x[i : i + 1], maps[:, i : i + 1], 1, subset_size=3, at_once=7
            )
            for i in range(3)
        ]
        torch.testing.assert_close(whole, torch.cat(parts, 1), rtol=0, atol=1e-5)
        other = metrics.faithfulness_correlation(model, x, maps, 1, subset_size=3, seed=1)
        assert (other - whole).abs().max() > 0.01

    def test_the_network_sees_each_perturbed_input_once(self) -> None:
        model, seen = convolutional(), []
        model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
        metrics.faithfulness_correlation(model, images(), [images()] * 9, 1, features=2)
        assert sum(seen) == 3 + 3 * 4

    def test_where_it_is_not_defined(self) -> None:
        found = metrics.faithfulness_correlation(
            linear(1, 1, 1, 1), LINE, [torch.ones(1, 4), LINE], features=None)  # fmt: skip
        assert math.isnan(found[0, 0])
        assert found[1, 0] == pytest.approx(1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"subset_size": 17}, "from 1 to the 16 features, not 17"),
            ({"samples": 1}, "samples must be at least 2"),
            ({"at_once": 0}, "at_once must be at least 1"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, options, message) -> None:
        with pytest.raises(ValueError, match=message):
            metrics.faithfulness_correlation(convolutional(), images(), [images()], 1, **options)
        with pytest.raises(ValueError, match=r"attribution 0 is of shape \(3, 8, 8\)"):
            metrics.faithfulness_correlation(convolutional(), images(), images(), 1)


class TestFaithfulnessEstimate:
    def test_by_hand(self) -> None:
        """In steps of two the map puts contributions 4, 2 and 3, 1 together: sums 7, 3 and 6, 4."""
        right, wrong = LINE, torch.tensor([[1.0, 3.0, 2.0, 4.0]])
        model = linear(1, 1, 1, 1)
        one = metrics.faithfulness_estimate(model, LINE, [right, wrong], features=None)
        assert one[:, 0].tolist() == pytest.approx([1, 0.8], abs=1e-12)
        x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 9.0]])
        map_ = torch.tensor([[6.0, 1.0, 5.0, 4.0, 3.0, 2.0]])
        # Steps {0, 2}, {3, 4}, {5, 1}: said 11, 7, 3; falls 4, 4, 11.
        found = metrics.faithfulness_estimate(
            linear(*[1] * 6), x, [map_, x, -x], features=None, features_in_step=2)  # fmt: skip
        by_hand = stats.pearsonr([11, 7, 3], [4, 4, 11])[0]
        assert found[:, 0].tolist() == pytest.approx([by_hand, 1, -1], abs=1e-12)

    def test_in_steps_of_one_it_is_the_faithfulness_correlation(self) -> None:
        model, x, maps = convolutional(), images(), torch.randn(2, 3, 3, 8, 8)
        one = metrics.faithfulness_estimate(model, x, maps, 2, features=3)
        other = metrics.faithfulness_correlation(model, x, maps, 2, features=3)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)

    def test_the_last_step_takes_what_is_left(self) -> None:
        """Steps {3, 2, 1}, {0}: two points, so that it is 1 or -1."""
        found = metrics.faithfulness_estimate(
            linear(1, 1, 1, -9), LINE, [LINE], features=None, features_in_step=3)  # fmt: skip
        assert found.item() == pytest.approx(-1)  # said 9 and 1; falls -31 and 1

    @pytest.mark.parametrize("step", [0, 17])
    def test_what_does_not_fit_is_refused(self, step) -> None:
        with pytest.raises(ValueError, match=f"from 1 to the 16 features, not {step}"):
            metrics.faithfulness_estimate(
                convolutional(), images(), [images()], 1, features_in_step=step)  # fmt: skip


class TestMonotonicity:
    def test_by_hand(self) -> None:
        """Signs do not count, and neither does anything but the order."""
        model = linear(1, -1, 1, -1)
        maps = [LINE, -LINE.exp(), LINE.flip(1), torch.tensor([[1.0, -3.0, 2.0, 4.0]])]
        found = metrics.monotonicity(model, LINE, maps, features=None)
        assert found[:, 0].tolist() == pytest.approx([1, 1, -1, 0.8], abs=1e-12)

    def test_in_steps_the_least_come_first(self) -> None:
        """Steps {1, 5}, {4, 3}, {2, 0}: said 3, 7, 11; changes 11, 4, 4 squared."""
        x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 9.0]])
        map_ = torch.tensor([[6.0, 1.0, -5.0, 4.0, 3.0, -2.0]])
        found = metrics.monotonicity(
            linear(*[1] * 6), x, [map_], features=None, features_in_step=2)  # fmt: skip
        expected = stats.spearmanr([3, 7, 11], [121, 16, 16])[0]
        assert found.item() == pytest.approx(expected, abs=1e-12)

    def test_noise_is_between_the_bounds_and_its_mean_square_decides(self) -> None:
        """f = w x at x = 0: the changes are w^2 E z^2, E z^2 the same for all but for chance."""
        x, seen = torch.zeros(2, 1, 2, 2), []
        low, high = torch.full((2, 2), -1.0), torch.tensor([[1.0, 1.0], [1.0, 50.0]])

        def model(given: Tensor) -> Tensor:
            seen.append(given)
            return (given * torch.tensor([[4.0, 1.0], [2.0, 3.0]])).sum((1, 2, 3))

        maps = [torch.tensor([[[4.0, 1.0], [2.0, 9.0]]]), torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])]
        found = metrics.monotonicity(
            model, x, [each[None] for each in maps], low=low, high=high, samples=200,
            features=None,
        )  # fmt: skip
        assert found.flatten().tolist() == pytest.approx([1, 1, 0.8, 0.8], abs=1e-12)
        everything = torch.cat(seen)
        assert (everything >= -1).all()
        assert (everything <= high).all()
        assert everything[:, 0, 0, 0].max() > 0.9
        assert everything[:, 0, 1, 1].max() > 45

    def test_a_batch_is_its_examples_and_nothing_is_left_behind(self) -> None:
        model, x, maps = convolutional(), images(), torch.randn(2, 3, 3, 8, 8)
        options = {"low": -1.0, "high": 1.0, "samples": 3, "features_in_step": 3}
        state = torch.get_rng_state()
        whole = metrics.monotonicity(model, x, maps, 1, **options)
        assert torch.equal(torch.get_rng_state(), state)
        for i in range(3):
            part = metrics.monotonicity(model, x[i : i + 1], maps[:, i : i + 1], 1, **options)
            torch.testing.assert_close(part[:, 0], whole[:, i], rtol=0, atol=1e-6)

    def test_no_draw_is_refused(self) -> None:
        with pytest.raises(ValueError, match="samples must be at least 1"):
            metrics.monotonicity(convolutional(), images(), [images()], 1, samples=0)


class TestFlipping:
    def test_curves_by_hand(self) -> None:
        model, low = linear(1, 1, 1, 1), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
        map_ = torch.tensor([[3.0, 1.0, 2.0, 4.0]])  # the order is 3, 0, 2, 1
        options = {"baselines": low, "features": None}
        flip = metrics.pixel_flipping(model, LINE, [map_, -map_], **options)
        assert flip[:, 0].tolist() == [[10, 6, 5, 3, 1], [10, 8, 6, 5, 1]]
        least = metrics.pixel_flipping(model, LINE, [map_], first="least", **options)
        assert torch.equal(least[0], flip[1])
        insert = metrics.pixel_flipping(model, LINE, [map_], insert=True, **options)
        assert insert[0, 0].tolist() == [1, 5, 6, 8, 10]
        three = metrics.pixel_flipping(model, LINE, [map_], features_in_step=3, **options)
        assert three[0, 0].tolist() == [10, 3, 1]
        all_at_once = metrics.pixel_flipping(model, LINE, [map_], features_in_step=4, **options)
        assert all_at_once[0, 0].tolist() == [10, 1]
        assert metrics.deletion(model, LINE, [map_], **options).item() == (5 + 6 + 5 + 3 + 0.5) / 4
        assert metrics.insertion(model, LINE, [map_], **options).item() == (0.5 + 19 + 5) / 4

    def test_equal_attributions_go_in_the_order_of_features(self) -> None:
        flip = metrics.pixel_flipping(linear(1, 1, 1, 1), LINE, [LINE * 0], features=None)
        assert flip[0, 0].tolist() == [10, 9, 7, 4, 0]

    def test_regions_are_replaced_as_a_whole(self) -> None:
        model, x = convolutional(), images(1)
        map_ = torch.zeros_like(x)
        map_[..., 5, 1] = 1.0  # lower left
        curve = metrics.pixel_flipping(model, x, [map_], 3, features=2)[0, 0]
        by_hand = x.clone()
        by_hand[..., 4:, :4] = 0
        torch.testing.assert_close(curve[1], model(by_hand)[0, 3].double(), rtol=0, atol=1e-6)


class TestFocus:
    def test_mosaics(self) -> None:
        images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 3, 5)
        labels = torch.tensor([7, 7, 7, 8, 8, 9])
        made = metrics.mosaics(images, labels, 40, seed=3)
        assert made.inputs.shape == (40, 2, 6, 10)
        assert sorted(made.target.tolist()) == [7] * 20 + [8] * 20
        assert (made.inside.sum(1) == 2).all()
        assert len({tuple(row) for row in made.inside.tolist()}) == 6
        of_class = labels[made.members] == made.target[:, None]
        assert torch.equal(of_class, made.inside)
        assert all(len(set(row)) == 4 for row in made.members.tolist())
        for number, (top, left) in enumerate([(0, 0), (0, 5), (3, 0), (3, 5)]):
            quadrant = made.inputs[:, :, top : top + 3, left : left + 5]
            assert (quadrant == made.members[:, number].view(-1, 1, 1, 1)).all()
        again = metrics.mosaics(images, labels, 40, seed=3)
        assert torch.equal(again.inputs, made.inputs)

    @pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 1]])
    def test_too_few_images(self, labels) -> None:
        with pytest.raises(ValueError, match="two images of other classes"):
            metrics.mosaics(torch.zeros(4, 1, 2, 2), labels, 1)
        with pytest.raises(ValueError, match="4 images have 3 labels"):
            metrics.mosaics(torch.zeros(4, 1, 2, 2), labels[:3], 1)

    def test_share_by_hand(self) -> None:
        """Channels are summed first; what is negative does not count."""
        map_ = torch.zeros(3, 2, 4, 4)
        map_[0, 0, 0, 0], map_[0, 1, 0, 0] = 5.0, -2.0  # 3, upper left
        map_[0, 1, 1, 3], map_[0, 0, 2, 0], map_[0, 0, 3, 3] = 1.0, -9.0, 2.0
        map_[1] = 1.0
        inside = torch.tensor([[True, False, True, False]] * 3)
        found = metrics.focus(map_, inside).tolist()
        assert found[:2] == [0.5, 0.5]
        assert math.isnan(found[2])
        upper = torch.tensor([[True, True, False, False]])
        assert metrics.focus(map_[:1], upper).item() == pytest.approx(4 / 6)


class TestSanity:
    def test_random_logit_of_a_linear_model(self) -> None:
        """The gradient of a class is its row of weights."""
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), images()
        target, others = torch.tensor([0, 1, 2]), torch.tensor([1, 3, 0])
        rows = model[1].weight.detach().view(4, 3, 64).sum(1).double()
        for absolute in (False, True):
            sized = rows.abs() if absolute else rows
            expected = [
                stats.spearmanr(sized[a], sized[b])[0] for a, b in zip(target, others, strict=True)
            ]
            found = metrics.random_logit(
                Saliency(model), x, target, others, absolute=absolute, abs=False
            )
            assert found.tolist() == pytest.approx(expected, abs=1e-9)

    def test_one_map_for_all_classes_is_found_out(self) -> None:
        found = metrics.random_logit(lambda x, target: x, images(), torch.tensor([0, 1, 2]), 5)
        assert found.tolist() == pytest.approx([1] * 3)

    def test_another_class_is_never_the_target(self) -> None:
        asked: list[Tensor] = []

        def attribute(inputs: Tensor, target: Tensor) -> Tensor:
            asked.append(target)
            return inputs

        target = torch.arange(3).repeat(100)
        state = torch.get_rng_state()
        metrics.random_logit(attribute, images(1).repeat(300, 1, 1, 1), target, 3)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(asked[0], target)
        assert (asked[1] != target).all()
        assert asked[1].bincount().tolist() == pytest.approx([100] * 3, abs=30)
        with pytest.raises(ValueError, match="is the target itself"):
            metrics.random_logit(attribute, images(), target[:3], torch.tensor([1, 0, 2]))

    def test_a_methods_own_noise_is_the_same_for_both(self) -> None:
        """Captum's NoiseTunnel, called by hand with the same seed for either class."""
        model, x = convolutional(), images()
        target, others = torch.tensor([0, 1, 2]), torch.tensor([1, 3, 0])
        options = {"nt_samples": 3, "stdevs": 0.5, "abs": False}
        found = metrics.random_logit(
            NoiseTunnel(Saliency(model)), x, target, others, seed=5, **options
        )
        maps = []
        for classes in (target, others):
            with torch.random.fork_rng():
                torch.manual_seed(5)
                maps.append(
                    NoiseTunnel(Saliency(model)).attribute(
                        x.clone().requires_grad_(), target=classes, **options
                    )
                )
        expected = [metrics.similarity(*pair, absolute=False) for pair in zip(*maps, strict=True)]
        assert found.tolist() == expected

    def test_cascading_randomization(self) -> None:
        """Against networks whose layers are reset by hand."""
        torch.manual_seed(0)
        model, x, target = convolutional(), images(), torch.tensor([0, 1, 2])
        before = {key: value.clone() for key, value in model.state_dict().items()}
        state = torch.get_rng_state()
        found = metrics.cascading_randomization(Saliency, model, x, target, seed=4, abs=False)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        assert list(found) == ["3", "0"]
        trained = Saliency(model).attribute(x.requires_grad_(), target, abs=False)
        with torch.random.fork_rng():
            torch.manual_seed(4)
            model[3].reset_parameters()
            last = Saliency(model).attribute(x.requires_grad_(), target, abs=False)
            model[0].reset_parameters()
            both = Saliency(model).attribute(x.requires_grad_(), target, abs=False)
        for fresh, name in ((last, "3"), (both, "0")):
            expected = [
                stats.spearmanr(*(abs(m.sum(0).flatten().numpy()) for m in pair))[0]
                for pair in zip(trained.double(), fresh.double(), strict=True)
            ]
            assert found[name].tolist() == pytest.approx(expected, abs=1e-9)
            assert (found[name] < 0.999).all()

    def test_cascading_randomization_of_what_does_not_look_at_the_network(self) -> None:
        made = []

        def make(model: nn.Module):
            made.append(model)
            return lambda inputs, target: inputs

        parts = [("end", ["3", "0"])]
        model = convolutional()
        found = metrics.cascading_randomization(make, model, images(), 1, parts=parts)
        assert {name: value.tolist() for name, value in found.items()} == {
            "end": pytest.approx([1] * 3)
        }
        assert made[0] is model
        assert not torch.equal(made[1][0].weight, model[0].weight)
