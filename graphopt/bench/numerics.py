"""Numerical programs: clustering, finance, differential equations, particles, graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy import special

from graphopt.bench.programs import Program, renewed


def kmeans_step(points: int = 20_000, dimensions: int = 16, clusters: int = 32) -> Program:
    """A step of Lloyd's algorithm: each point to the nearest center, each center to the mean of its points."""

    def step(x: jax.Array, centers: jax.Array) -> jax.Array:
        distances = jnp.sum(x**2, 1)[:, None] - 2 * x @ centers.T + jnp.sum(centers**2, 1)
        nearest = jnp.argmin(distances, axis=1)
        sums = jax.ops.segment_sum(x, nearest, clusters)
        counts = jax.ops.segment_sum(jnp.ones(points), nearest, clusters)
        return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centers)

    def numpy(x: Any, centers: Any) -> Any:
        distances = np.sum(x**2, 1)[:, None] - 2 * x @ centers.T + np.sum(centers**2, 1)
        nearest = np.argmin(distances, axis=1)
        counts = np.bincount(nearest, minlength=clusters).astype(np.float32)
        sums = np.stack([np.bincount(nearest, column, clusters) for column in x.T], axis=1).astype(np.float32)
        return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)

    def arguments() -> tuple[Any, ...]:
        centers, which, noise = jax.random.split(jax.random.key(0), 3)
        means = 5 * jax.random.normal(centers, (clusters, dimensions))
        x = means[jax.random.randint(which, (points,), 0, clusters)]
        return x + jax.random.normal(noise, x.shape), means + 0.5

    return Program("k-means step", renewed(step), arguments, numpy)


def black_scholes(options: int = 1_000_000) -> Program:
    """Prices of European calls and puts, by the formula of Black and Scholes (1973). SciPy's ndtr beside NumPy."""

    def prices(spot: jax.Array, strike: jax.Array, years: jax.Array, rate: float, volatility: float) -> Any:
        deviation = volatility * jnp.sqrt(years)
        d1 = (jnp.log(spot / strike) + (rate + volatility**2 / 2) * years) / deviation
        d2 = d1 - deviation
        discounted = strike * jnp.exp(-rate * years)
        call = spot * jax.scipy.stats.norm.cdf(d1) - discounted * jax.scipy.stats.norm.cdf(d2)
        return call, call - spot + discounted

    def numpy(spot: Any, strike: Any, years: Any, rate: Any, volatility: Any) -> Any:
        deviation = volatility * np.sqrt(years)
        d1 = (np.log(spot / strike) + (rate + volatility**2 / 2) * years) / deviation
        d2 = d1 - deviation
        discounted = strike * np.exp(-rate * years)
        call = spot * special.ndtr(d1) - discounted * special.ndtr(d2)
        return call, call - spot + discounted

    def arguments() -> tuple[Any, ...]:
        keys = jax.random.split(jax.random.key(0), 3)
        ranges = ((50.0, 150.0), (50.0, 150.0), (0.1, 2.0))
        drawn = [
            jax.random.uniform(key, (options,), minval=a, maxval=b) for key, (a, b) in zip(keys, ranges, strict=True)
        ]
        return *drawn, jnp.float32(0.03), jnp.float32(0.2)

    return Program("Black-Scholes", renewed(prices), arguments, numpy)


def runge_kutta(trajectories: int = 10_000, steps: int = 50, h: float = 0.01) -> Program:
    """The Lorenz system from many starting points, integrated by the classical Runge-Kutta method, steps in a loop."""

    def slope(stack: Callable[..., Any], y: Any) -> Any:
        return stack([10.0 * (y[1] - y[0]), y[0] * (28.0 - y[2]) - y[1], y[0] * y[1] - 8.0 / 3.0 * y[2]])

    def step(stack: Callable[..., Any], y: Any) -> Any:
        k1 = slope(stack, y)
        k2 = slope(stack, y + h / 2 * k1)
        k3 = slope(stack, y + h / 2 * k2)
        k4 = slope(stack, y + h * k3)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def integrate(y: jax.Array) -> Any:
        return lax.fori_loop(0, steps, lambda _, y: step(jnp.stack, y), y)

    def numpy(y: Any) -> Any:
        for _ in range(steps):
            y = step(np.stack, y)
        return y

    def arguments() -> tuple[Any, ...]:
        return (10 + jax.random.normal(jax.random.key(0), (3, trajectories)),)

    return Program("RK4 integrator", renewed(integrate), arguments, numpy)


def heat(side: int = 512, steps: int = 50) -> Program:
    """The heat equation on a square with a fixed border: explicit steps with the five-point stencil."""

    def spread(u: jax.Array) -> jax.Array:
        center = u[1:-1, 1:-1]
        around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
        return u.at[1:-1, 1:-1].set(center + 0.2 * (around - 4 * center))

    def numpy(u: Any) -> Any:
        u = u.copy()
        for _ in range(steps):
            center = u[1:-1, 1:-1]
            around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
            u[1:-1, 1:-1] = center + 0.2 * (around - 4 * center)
        return u

    return Program(
        "heat stencil",
        renewed(lambda u: lax.fori_loop(0, steps, lambda _, u: spread(u), u)),
        lambda: (jax.random.uniform(jax.random.key(0), (side, side)),),
        numpy,
    )


def nbody(bodies: int = 1000, h: float = 1e-3, softening: float = 1e-2) -> Program:
    """A step of bodies that all attract each other, with softened gravity: velocities, then positions."""

    def step(array: Any, x: Any, v: Any, mass: Any) -> Any:
        apart = x[None, :, :] - x[:, None, :]
        squared = array.sum(apart**2, axis=-1) + softening**2
        strength = mass * squared**-1.5
        v = v + h * array.sum(strength[:, :, None] * apart, axis=1)
        return x + h * v, v

    def arguments() -> tuple[Any, ...]:
        x, v, mass = jax.random.split(jax.random.key(0), 3)
        masses = jax.random.uniform(mass, (bodies,), minval=0.5, maxval=1.5) / bodies
        return jax.random.normal(x, (bodies, 3)), 0.1 * jax.random.normal(v, (bodies, 3)), masses

    return Program(
        "n-body", renewed(lambda x, v, mass: step(jnp, x, v, mass)), arguments, lambda x, v, mass: step(np, x, v, mass)
    )


def pagerank(nodes: int = 20_000, edges: int = 200_000, iterations: int = 20, damping: float = 0.85) -> Program:
    """PageRank (Page et al., 1999) by power iteration on a sparse graph, its edges as two arrays of nodes."""

    def rank(sources: jax.Array, targets: jax.Array) -> Any:
        degree = jax.ops.segment_sum(jnp.ones(edges), sources, nodes)

        def iterate(_: int, ranks: jax.Array) -> jax.Array:
            share = jnp.where(degree > 0, ranks / jnp.maximum(degree, 1), 0)
            lost = jnp.sum(jnp.where(degree > 0, 0, ranks))
            passed = jax.ops.segment_sum(share[sources], targets, nodes)
            return (1 - damping) / nodes + damping * (passed + lost / nodes)

        return lax.fori_loop(0, iterations, iterate, jnp.full(nodes, 1 / nodes))

    def numpy(sources: Any, targets: Any) -> Any:
        degree = np.bincount(sources, minlength=nodes).astype(np.float32)
        ranks = np.full(nodes, 1 / nodes, np.float32)
        for _ in range(iterations):
            share = np.where(degree > 0, ranks / np.maximum(degree, 1), 0)
            lost = np.sum(ranks[degree == 0])
            passed = np.bincount(targets, share[sources], nodes).astype(np.float32)
            ranks = np.float32((1 - damping) / nodes) + damping * (passed + lost / nodes)
        return ranks

    def arguments() -> tuple[Any, ...]:
        sources, targets = jax.random.split(jax.random.key(0))
        # Targets are not evenly spread: some nodes are known to many.
        popular = jax.random.uniform(targets, (edges,)) ** 3
        return jax.random.randint(sources, (edges,), 0, nodes), (popular * nodes).astype(jnp.int32)

    return Program("PageRank", renewed(rank), arguments, numpy)


NUMERICS: tuple[Callable[[], Program], ...] = (kmeans_step, black_scholes, runge_kutta, heat, nbody, pagerank)
