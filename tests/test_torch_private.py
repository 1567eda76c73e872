"""Private names of PyTorch: in `engine/_torch` alone, and each fails by name if it changes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_pullback.engine import _torch

ROOT = Path(__file__).parent.parent
#: Python's own.
PYTHONS = {"_exit", "_fields", "_replace", "_asdict"}
ASKING = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names(trees: list[ast.Module]) -> set[str]:
    """All names that are given in these modules."""
    found: set[str] = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def foreign_private_names(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """The private names that a module uses and that are not its package's own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in own and not ast.unparse(node).startswith("torch.ops."):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from filter(is_private, names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("torch.")]
            yield from (name for name in names if any(map(is_private, name.split("."))))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ASKING:
            for given in node.args:
                if isinstance(given, ast.Constant) and is_private(str(given.value)):
                    yield from {str(given.value)} - own


#: For these PyTorch has no public name, and the package has no use.
ONLY_TESTS_USE = {
    "tests/snapshot.py": {"torch._C", "torch._C._len_torch_dispatch_stack", "p._backward_hooks"},
    "tests/test_jacobian.py": {"_python_dispatch"},
    "tests/test_pooling.py": {"_python_dispatch"},
}


def parsed(folder: str) -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in (ROOT / folder).rglob("*.py")
        if "_build" not in path.parts
    }


@pytest.mark.parametrize("folder", ["captum_pullback", "benchmarks", "docs", "tests"])
def test_they_are_in_one_place(folder: str) -> None:
    trees = parsed(folder)
    known = ["captum_pullback", "benchmarks", "tests"] if folder == "tests" else [folder]
    own = PYTHONS.union(*(own_names(list(parsed(name).values())) for name in known))
    used = {name: set(foreign_private_names(tree, own)) for name, tree in trees.items()}
    if folder == "captum_pullback":
        ours = [name for name in used if name.startswith("captum_pullback/engine/_torch/")]
        assert "torch._C._nn" in set().union(*map(used.pop, ours))
    expected = ONLY_TESTS_USE if folder == "tests" else {}
    assert {name: names for name, names in used.items() if names} == expected


@pytest.mark.parametrize(
    "line",
    [
        "torch._C.ScriptMethod",
        "node._saved_self",
        "from torch._dynamo import config",
        "from torch.overrides import _get_current_function_mode_stack",
        "import torch._inductor",
        "getattr(node, '_input_metadata', ())",
        "operator.attrgetter('_modules')",
    ],
)
def test_one_elsewhere_is_found(line: str) -> None:
    assert list(foreign_private_names(ast.parse(line), set()))


class Quiet(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return func(*args, **kwargs or {})


def test_the_stack_of_function_modes() -> None:
    """torch._C._push_on_torch_function_stack, _pop_..., _len_..., _get_function_stack_at."""
    assert _torch.mode_depth() == 0
    outer, inner = Quiet(), Quiet()
    _torch.enter_mode(outer)
    _torch.enter_mode(inner)
    try:
        assert _torch.modes() == [outer, inner]
        _torch.leave_mode(outer)
        assert _torch.modes() == [inner]
    finally:
        _torch.leave_mode(inner)
    assert _torch.mode_depth() == 0


def test_functions_without_override_run_their_own_code() -> None:
    """The code of torch.autograd.grad, and how it asks for modes."""
    met: list[object] = []

    class Asking(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            met.append(func)
            return func(*args, **kwargs or {})

    grad = _torch.without_override(torch.autograd.grad)
    x = torch.tensor(2.0, requires_grad=True)
    with Asking():
        (found,) = grad(x * 3, x)
    assert found == 3
    assert torch.autograd.grad not in met


def test_the_module_that_runs_is_on_the_stack_of_frames() -> None:
    """nn.Module._call_impl, and that its frame has `self`."""
    found: list[int | None] = []

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found.append(_torch.running_module(names))
            return x

    network = Outer()
    names = {_torch.module_key(network): "", _torch.module_key(network.inner): "inner"}
    network(torch.ones(1))
    assert found == [_torch.module_key(network.inner)]
    assert _torch.running_module(names) is None


def test_transforms_are_seen_and_their_tensors_unwrapped() -> None:
    """torch._C._are_functorch_transforms_active, and functorch's wrapped tensors."""
    x = torch.ones(2, 3, requires_grad=True)
    seen: list[bool] = []

    def look(row: Tensor) -> Tensor:
        seen.extend((_torch.is_transformed(), _torch.unwrapped(row).requires_grad))
        return row * 2

    torch.vmap(look)(x)
    assert seen == [True, True]
    assert not _torch.is_transformed()
    assert _torch.unwrapped(x) is x


def test_batched_gradients_are_recognized() -> None:
    """torch._C._functorch.is_legacy_batchedtensor."""
    seen: list[bool] = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
            seen.append(_torch.has_batched_gradient(grad))
            return grad

    x = torch.ones(2, requires_grad=True)
    torch.autograd.grad(Look.apply(x), x, torch.eye(2), is_grads_batched=True)
    torch.autograd.grad(Look.apply(x).sum(), x)
    assert seen == [True, False]


def test_what_nodes_keep() -> None:
    """Node._saved_..., Node.metadata, Node._input_metadata and Node._sequence_nr."""
    x = torch.ones(2, 3, requires_grad=True)
    node = (x**-2).grad_fn
    assert node is not None
    assert _torch.saved_value(node, "exponent") == -2
    assert _torch.saved_value(node, "nothing of the kind", 7) == 7
    _torch.notes(node)["captum_pullback.test"] = 1
    assert _torch.notes((x**-2).grad_fn) == {}  # type: ignore[arg-type]
    assert _torch.notes(node) == {"captum_pullback.test": 1}
    assert _torch.number_of(node) == _torch.number_of(node)
    assert _torch.number_of((x**-2).grad_fn) != _torch.number_of(node)  # type: ignore[arg-type]
    assert _torch.input_shapes(node) == [(torch.Size([2, 3]), torch.float32)]


def test_views_versions_and_tensors_of_their_own() -> None:
    """Tensor._is_view, Tensor._version."""
    x = torch.ones(3)
    assert not _torch.is_view(x)
    assert _torch.is_view(x[1:])
    before = _torch.version(x)
    x.add_(1)
    assert _torch.version(x) == before + 1
    owned = _torch.own(x[1:])
    assert not _torch.is_view(owned)
    assert owned.data_ptr() == x[1:].data_ptr()
    assert _torch.base(x[1:]) is x


def test_compiled_modules_are_recognized() -> None:
    """torch._dynamo.OptimizedModule, and Module._compiled_call_impl."""
    plain = nn.ReLU()
    assert not _torch.is_compiled_module(plain)
    compiled = torch.compile(nn.ReLU())
    assert _torch.is_compiled_module(compiled)
    assert [name for name, _ in compiled.named_children()] == [_torch.COMPILED]
    plain.compile()
    assert _torch.is_compiled_module(plain)


def test_a_trace_for_cond_is_told_from_others() -> None:
    """torch._dynamo's InstructionTranslator.current_tx, and the name of torch.cond's wrapper."""
    found: list[str] = []

    class Asking(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if torch.compiler.is_compiling():
                _note(found_in=_torch.is_traced_for_cond())
            return func(*args, **kwargs or {})

    @torch.compiler.assume_constant_result
    def _note(found_in: bool) -> bool:
        found.append("cond" if found_in else "compile")
        return True

    x = torch.ones(3)
    torch.compiler.reset()
    with Asking():
        torch.compile(lambda x: x.sin() + 1, backend="eager")(x)
        assert set(found) == {"compile"}
        found.clear()
        torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))
        assert set(found) == {"cond"}
    torch.compiler.reset()


def test_the_projection_of_attention() -> None:
    """torch.nn.functional._in_projection_packed, and that attention calls it by this name."""
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 4), torch.randn(12, 4), torch.randn(12)
    parts = _torch.project_packed(x, x, x, weight, bias)
    for part, w, b in zip(parts, weight.chunk(3), bias.chunk(3), strict=True):
        torch.testing.assert_close(part, x @ w.T + b)
    met: list[Tensor] = []

    def noted(*args: Tensor) -> object:
        met.append(args[0])
        return _torch.project_packed(*args)

    attention = nn.MultiheadAttention(4, 2)
    copy = _torch.without_override(F.multi_head_attention_forward, _in_projection_packed=noted)
    out = attention.out_proj
    given = (x, x, x, 4, 2, attention.in_proj_weight, attention.in_proj_bias, None, None, False)
    copy(*given, 0.0, out.weight, out.bias, training=False, need_weights=False)
    assert len(met) == 1
    assert met[0] is x


def test_an_autograd_functions_own_apply() -> None:
    """torch.autograd.Function.apply's own superclass, and torch._C._functorch.unwrap_if_dead."""

    class Triple(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
            return grad * 3

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = _torch.undressed(Triple)(_torch.alive(x))
    assert y.tolist() == [2, 4]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [3, 3]
    left: list[Tensor] = []
    torch.func.grad(lambda x: left.append(x) or x.sum())(x)  # type: ignore[func-returns-value]
    assert _torch.alive(left[0]) is x
    assert _torch.alive(x) is x


def test_modules_of_a_module_and_hooks_for_saved_tensors() -> None:
    """nn.Module._modules, and torch._C._autograd._top_saved_tensors_default_hooks."""
    first, network = nn.ReLU(), nn.Sequential()
    network.add_module("first", first)
    assert dict(_torch.children(network)) == {"first": first}
    assert _torch.saved_tensor_hooks(False) is None
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
        assert _torch.saved_tensor_hooks(False) is not None
    with _torch.quiet(), Quiet():
        torch.ones(1)


def test_what_a_context_is_told_without_a_call() -> None:
    """to_save and materialize_grads of an autograd function's context; OpOverload._op."""
    seen: list[object] = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
            ctx.materialize_grads = False
            ctx.to_save = (x,)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, first: Tensor, second: Tensor | None) -> Tensor:  # type: ignore[override]
            seen.extend((ctx.saved_tensors[0], second))
            return first * 5

    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (grad,) = torch.autograd.grad(Look.apply(x)[0].sum(), x)
    assert grad.tolist() == [5, 5]
    assert seen[0] is x
    assert seen[1] is None
    assert _torch.kernel(torch.ops.aten.neg.default)(x).tolist() == [-1, -2]
