"""One model gives one result, however it is spelled, compiled, exported or run."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from marks import dynamo_warns
from reference import gradient, max_pool2d, relative_error, relu
from snapshot import hooks
from threads import at_once
from torch import Tensor, nn

from captum_pullback import ExcitationPullback, soften
from captum_pullback.engine.errors import SofteningError

pytestmark = dynamo_warns


class Spelled(nn.Module):
    """conv, gate, conv, gate (both the same), pool, head; gates spelled as asked."""

    def __init__(self, gate: Callable[[Tensor], Tensor], pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 6, 3)
        self.two = nn.Conv2d(6, 6, 3)
        self.gate, self.pool = gate, pool
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(self.one(x))
        return self.head(self.pool(self.gate(self.two(x))).flatten(1))


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "functional": F.relu,
    "in place": nn.ReLU(inplace=True),
    "method": Tensor.relu_,
    "clamp": lambda z: z.clamp(min=0),
}
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.MaxPool2d(2),
    "functional": lambda x: F.max_pool2d(x, 2),
    "indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "adaptive": nn.AdaptiveMaxPool2d(2),
}


def spelled(gate: str = "module", pool: str = "module") -> Spelled:
    torch.manual_seed(7)
    return Spelled(GATES[gate], POOLS[pool]).eval()


def pictures(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(8)).to(dtype)


TARGET = [1, 0, 4]


def closed_form(temperature: float = 0.4) -> Tensor:
    model, x = spelled().double(), pictures(torch.float64).requires_grad_()
    z = relu(model.two(relu(model.one(x), temperature)), temperature)
    scores = model.head(max_pool2d(z, temperature, 2, 2).flatten(1))
    return gradient(sum(scores[i, t] for i, t in enumerate(TARGET)), x)


def pulled(model: Callable[..., Any], x: Tensor | None = None, **options: Any) -> Tensor:
    x = pictures() if x is None else x
    return ExcitationPullback(model, 0.4, **options).attribute(x, TARGET)


def assert_right(found: Tensor, tolerance: float = 1e-5) -> None:
    assert relative_error(found, closed_form()) < tolerance


@pytest.fixture
def fresh_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    # In torch's own folder there may be kernels for other vector instructions than those that
    # ATEN_CPU_CAPABILITY allows now, and torch 2.14 takes them: its results are NaN then.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def in_channels_last(model: nn.Module) -> Tensor:
    x = pictures().contiguous(memory_format=torch.channels_last)
    found = pulled(model.to(memory_format=torch.channels_last), x)
    assert found.is_contiguous()
    return found


def in_autocast(model: nn.Module) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return pulled(model)


def exported(model: nn.Module) -> Tensor:
    return pulled(torch.export.export(model, (pictures(),)).module())


def compiled(model: nn.Module) -> Tensor:
    torch.compiler.reset()
    return pulled(torch.compile(model, backend="aot_eager"))


RUNS: dict[str, tuple[Callable[[nn.Module], Tensor], float]] = {
    "eager": (pulled, 1e-5),
    "double": (lambda model: pulled(model.double(), pictures(torch.float64)), 1e-12),
    "bfloat16": (lambda model: pulled(model.bfloat16(), pictures(torch.bfloat16)), 3e-2),
    "float16": (lambda model: pulled(model.half(), pictures(torch.float16)), 5e-3),
    "autocast": (in_autocast, 3e-2),
    "channels last": (in_channels_last, 1e-5),
    "exported": (exported, 1e-5),
    "compiled": (compiled, 1e-5),
    "a method": (lambda model: pulled(model.forward), 1e-5),
    "a callable": (lambda model: pulled(lambda x: model(x)), 1e-5),
    "a copy": (lambda model: pulled(copy.deepcopy(model)), 1e-5),
    "DataParallel": (lambda model: pulled(nn.DataParallel(model)), 1e-5),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("gate", GATES)
def test_one_model_gives_one_result(gate: str, run: str) -> None:
    run_it, tolerance = RUNS[run]
    assert_right(run_it(spelled(gate)), tolerance)


@pytest.mark.parametrize("run", ["eager", "compiled", "exported", "channels last", "autocast"])
@pytest.mark.parametrize("pool", POOLS)
def test_one_pool_gives_one_result(pool: str, run: str) -> None:
    run_it, tolerance = RUNS[run]
    assert_right(run_it(spelled("functional", pool)), tolerance)


# --- compiled -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_inductor_gives_the_same_result() -> None:
    assert_right(pulled(torch.compile(spelled("functional"))))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    "gate", [F.relu6, lambda x: F.relu6(x.clone(), inplace=True), lambda x: F.leaky_relu(x, 0.1)]
)
def test_gates_of_several_slopes_are_compiled_too(gate: Callable[[Tensor], Tensor]) -> None:
    model = spelled("functional")
    model.gate = gate
    expected = pulled(model)
    torch.testing.assert_close(pulled(torch.compile(model, backend="aot_eager")), expected)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_model_is_plain_outside_and_takes_new_temperatures() -> None:
    model, x = spelled(), pictures().requires_grad_()
    compiled = torch.compile(model, backend="aot_eager")
    plain = gradient(model(x).sum(), x)
    for temperature in (0.4, 0.9, 0.0, 0.4):
        torch.testing.assert_close(gradient(compiled(x).sum(), x), plain)
        with soften(model, temperature):
            expected = gradient(model(x).sum(), x)
        with soften(compiled, temperature) as record:
            torch.testing.assert_close(gradient(compiled(x).sum(), x), expected)
        assert {met.operation for met in record.gates} == {"relu", "max_pool2d"}
    torch.testing.assert_close(gradient(compiled(x).sum(), x), plain)


@pytest.mark.usefixtures("fresh_compiler")
def test_new_temperatures_need_no_new_compilations() -> None:
    frames: list[object] = []

    def backend(graph: torch.fx.GraphModule, example_inputs: Any) -> Callable[..., Any]:
        frames.append(graph)
        return graph.forward

    compiled, x = torch.compile(spelled("functional"), backend=backend), pictures()
    counts = []
    for temperature in (0.2, 0.3, 0.4, 0.5):
        ExcitationPullback(compiled, temperature).attribute(x, TARGET)
        counts.append(len(frames))
    assert counts[1] <= 2  # the second may turn the number into a symbol
    assert counts[1:] == [counts[1]] * 3


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_in_place_and_a_compiled_part() -> None:
    model = spelled()
    model.compile(backend="aot_eager")
    assert_right(pulled(model))
    model = spelled()
    model.two = nn.Sequential(model.two, nn.Identity())
    model.two.compile(backend="aot_eager")
    assert_right(pulled(model))


@pytest.mark.usefixtures("fresh_compiler")
def test_names_are_refused_for_a_compiled_model() -> None:
    compiled = torch.compile(spelled(), backend="aot_eager")
    with pytest.raises(SofteningError, match=r"compiled graph has lost.*original module"):
        ExcitationPullback(compiled, {"": 0.3, "gate": 0.4})


# --- exported, scripted, traced -----------------------------------------------------------------


def test_an_exported_program_says_to_pass_its_module() -> None:
    program = torch.export.export(spelled(), (pictures(),))
    with pytest.raises(TypeError, match=r"pass its \.module\(\)"):
        ExcitationPullback(program)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*jit.*")
@pytest.mark.parametrize("kind", ["script", "trace", "part", "function"])
def test_scripted_and_traced_models_are_refused_by_name(kind: str) -> None:
    model: Any = spelled()
    where = r"\(model\)"
    if kind == "trace":
        model = torch.jit.trace(model, pictures())
    elif kind == "script":
        model = torch.jit.script(nn.Sequential(nn.ReLU()))
    elif kind == "part":
        model.two, where = torch.jit.script(model.two), "two"
    else:
        model, where = torch.jit.script(F.relu), "original torch.nn.Module"
    with pytest.raises(TypeError, match=f"scripted or traced.*{where}"):
        ExcitationPullback(model)


# --- DataParallel and threads -------------------------------------------------------------------


class Parallel(nn.DataParallel):
    """DataParallel on the CPU: two threads, each with a half of the batch and a copy."""

    def forward(self, x: Tensor) -> Tensor:
        halves = [(half,) for half in x.tensor_split(2)]
        replicas = [copy.copy(self.module) for _ in halves]
        return torch.cat(self.parallel_apply(replicas, halves, ({}, {})))

    def parallel_apply(self, replicas: Sequence[Any], inputs: Any, kwargs: Any) -> list[Tensor]:
        results: dict[int, Tensor] = {}

        def work(number: int) -> None:
            results[number] = replicas[number](*inputs[number], **kwargs[number])

        at_once(*(partial(work, number) for number in range(len(replicas))))
        return [results[number] for number in range(len(replicas))]


def test_the_threads_of_dataparallel_take_on_the_softening() -> None:
    model = Parallel(spelled())
    assert_right(pulled(model))
    assert "parallel_apply" not in vars(model)
    with soften(model, {"": 0.4, "gate": 0.4}) as record:
        model(pictures().requires_grad_())
    assert {(m.module, m.calls) for m in record.softened} == {("gate", 4), ("pool", 2)}


def test_threads_attribute_and_train_at_once() -> None:
    model = spelled("in place")
    learner, x = copy.deepcopy(model), pictures()
    expected = {t: ExcitationPullback(model, t).attribute(x, TARGET) for t in (0, 0.2, 0.9)}
    names = ExcitationPullback(model, {"": 0.2, "pool": 0.9}).attribute(x, TARGET)
    plain = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    wrong: list[str] = []
    barrier = threading.Barrier(6)

    def attribute(temperature: Any, right: Tensor) -> None:
        barrier.wait()
        for _ in range(15):
            if not torch.equal(ExcitationPullback(model, temperature).attribute(x, TARGET), right):
                wrong.append(f"attribution at {temperature}")

    def train() -> None:
        barrier.wait()
        for _ in range(15):
            grads = torch.autograd.grad(model(x).sum(), list(model.parameters()))
            if not all(map(torch.equal, grads, plain)):
                wrong.append("training")

    jobs = [partial(attribute, *given) for given in expected.items()]
    at_once(*jobs, partial(attribute, {"": 0.2, "pool": 0.9}, names), train, train)
    assert wrong == []
    assert all(map(torch.equal, model.parameters(), learner.parameters()))
    assert hooks(model) == []
