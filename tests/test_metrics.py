"""The metrics in captum_pullback.study.metrics, where their values are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from captum_pullback import correlation
from captum_pullback.ablation import Ablation, features_of
from captum_pullback.study import metrics

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
