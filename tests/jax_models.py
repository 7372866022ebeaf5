"""Factories of JAX models, named as ``tests/jax_models.py:NAME``; only JAX's own environment runs them."""

# /// script
# dependencies = ["toolz==1.1.0"]
# ///

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx


def function():
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    return jax.jit(lambda x: jnp.tanh(x @ weights)), np.ones((2, 4), np.float32), {"x": {0: "batch"}}


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.norm = nnx.Linear(8, 16, rngs=rngs), nnx.BatchNorm(16, rngs=rngs)
        self.dropout, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(16, 5, rngs=rngs)

    def __call__(self, features):
        hidden = self.dropout(nnx.gelu(self.norm(self.hidden(features))))
        scores = nnx.softmax(self.out(hidden))
        return {"scores": scores, "label": scores.argmax(-1), "hidden": hidden}


def nnx_module():
    return Classifier(nnx.Rngs(0)), jnp.ones((2, 8)), ({0: "batch"},)


class Images(linen.Module):
    @linen.compact
    def __call__(self, image):
        x = linen.Conv(4, (3, 3), strides=2)(image)
        x = linen.relu(linen.BatchNorm(use_running_average=True)(x))
        x = linen.max_pool(x, (2, 2), strides=(1, 1))
        x = linen.avg_pool(linen.GroupNorm(2)(x), (2, 2), (2, 2))
        return linen.log_softmax(linen.Dense(3)(x.reshape(x.shape[0], -1)))


def linen_module():
    image = jnp.ones((2, 16, 16, 3))
    return Images().bind(Images().init(jax.random.key(1), image)), (image,), {"image": ("batch", None, None, None)}


class Tokens(linen.Module):
    @linen.compact
    def __call__(self, ids, mask):
        x = linen.Embed(10, 16)(ids)
        seen = (mask[:, None, None, :] > 0) & jnp.ones((1, 1, ids.shape[1], 1), bool)
        x = linen.LayerNorm()(x + linen.MultiHeadDotProductAttention(2)(x, x, mask=seen))
        return linen.Dense(4)(x), x[:, 0]


def attention():
    batch, length = jax.export.symbolic_shape("batch, length")
    shape = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    variables = Tokens().init(jax.random.key(2), jnp.ones((2, 5), int), jnp.ones((2, 5), int))
    return lambda ids, mask: Tokens().apply(variables, ids, mask), {"mask": shape, "ids": shape}


def control_flow():
    def run(x):
        x = jax.lax.cond(x.sum() > 0, lambda v: v * 2, lambda v: -v, x)
        _, x = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.5), (0, x))
        total, steps = jax.lax.scan(lambda c, row: (c * 0.5 + row, c), jnp.zeros(x.shape[0]), x.T)
        return total, steps.T

    return run, np.ones((2, 6), np.float32), {"x": {0: "batch"}}


def numbers():
    def run(x):
        return jnp.sort(x, -1), jax.lax.top_k(x, 2), jnp.cumsum(x, -1), jnp.einsum("bi,bj->bij", x, x)

    return run, np.ones((2, 6), np.float32), {"x": {0: "batch"}}


def extra_package():
    import toolz

    assert toolz.__version__ == "1.1.0"
    return toolz.compose(jnp.tanh, jnp.exp), np.ones((2, 4), np.float32)


def double():
    jax.config.update("jax_enable_x64", True)
    examples = np.ones((2, 4)), np.ones(2, np.int64)
    return lambda x, n: (jnp.sin(x) + n[:, None], n * 2), examples, [("batch", None), ("batch",)]


def single():
    return lambda x: x + 1, {"x": np.ones(4, np.int64)}


def python_branch():
    return lambda x: x if x.sum() > 0 else -x, np.ones((2, 4), np.float32)


def unbound():
    return Images(), jnp.ones((2, 16, 16, 3))


def random_key():
    return lambda key: jax.random.normal(key, (2,)), (jax.random.key(0),)


def two_sizes():
    return jnp.add, (jnp.ones((2, 4)), jnp.ones((3, 4))), ({0: "batch"}, {0: "batch"})


def half():
    return lambda x: x.astype(jnp.bfloat16), jnp.ones((2, 4))


def crashes():
    import os

    os.kill(os.getpid(), 11)


def raises():
    return undefined_name  # noqa: F821


def lacks_a_package():
    import einops_that_is_not_there  # noqa: F401
