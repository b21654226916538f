"""Expected counts of a hidden Markov model in C++: the recursion of `forward_backward`, without a call for each step.

Names and formulas are those of `zoo.chains.forward_backward`, which asks for this where native code is allowed.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from zoo.native import library

__all__ = ["scaled_counts"]

TYPES = {torch.float32: "float", torch.float64: "double"}
STATES = 64
"""Beyond so many, a step is work enough for the library that numpy calls."""
NUMBERS = 2**18
"""Of a sequence, steps times states: of sixteen at a time three copies are kept, 50 MiB then."""

SOURCE = """
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

// Sequences stand side by side in the lanes of vectors, so that a step of K states is K x K products of vectors.
template <typename T, int LANES> struct Chains {
    typedef T V __attribute__((vector_size(sizeof(T) * LANES)));
    const int64_t steps, K;
    std::vector<T> memory;
    V *p, *predicted, *f, *w, *v, *joint;

    Chains(int64_t steps, int64_t K) : steps(steps), K(K), memory((3 * steps * K + 2 * K + K * K + 1) * LANES) {
        void* start = memory.data();
        size_t room = memory.size() * sizeof(T);
        p = (V*)std::align(alignof(V), 1, start, room);
        predicted = p + steps * K, f = predicted + steps * K, w = f + steps * K, v = w + K, joint = v + K;
    }

    // y = x A, A by rows.
    void product(const V* x, const T* A, V* y) const {
        int64_t j = 0;
        for (; j + 4 <= K; j += 4) {
            V a = x[0] * A[j], b = x[0] * A[j + 1], c = x[0] * A[j + 2], d = x[0] * A[j + 3];
            for (int64_t i = 1; i < K; ++i) {
                const T* row = A + i * K + j;
                a += x[i] * row[0], b += x[i] * row[1], c += x[i] * row[2], d += x[i] * row[3];
            }
            y[j] = a, y[j + 1] = b, y[j + 2] = c, y[j + 3] = d;
        }
        for (; j < K; ++j) {
            V a = x[0] * A[j];
            for (int64_t i = 1; i < K; ++i) a += x[i] * A[i * K + j];
            y[j] = a;
        }
    }

    // y = x * f / their sum, which it returns; x counts as ones where there is none.
    V message(const V* x, const V* f, V* y) const {
        V total = {};
        for (int64_t j = 0; j < K; ++j) total += (y[j] = x ? x[j] * f[j] : f[j]);
        const V share = 1 / total;
        for (int64_t j = 0; j < K; ++j) y[j] *= share;
        return total;
    }

    static void see(V x, V& least, V& sum) { least = x < least ? x : least, sum += x; }

    // The sequences from the first on: flow has likelihoods, and then probabilities of states.
    void run(const T* start, const T* A, const T* turned, T* flow, T* sizes, T* pairs, T* lowest, int64_t sequences) {
        int64_t of[LANES];
        for (int64_t l = 0; l < LANES; ++l) of[l] = std::min(l, sequences - 1);
        for (int64_t k = 0; k < steps * K; ++k)
            for (int64_t l = 0; l < LANES; ++l) f[k][l] = flow[of[l] * steps * K + k];
        V small = std::numeric_limits<T>::infinity() + V{}, mass = small, sum = {};
        for (int64_t t = 0; t < steps; ++t) {
            V* now = predicted + t * K;
            if (t) product(p + (t - 1) * K, A, now);
            else for (int64_t j = 0; j < K; ++j) now[j] = start[j] + V{};
            const V c = message(now, f + t * K, p + t * K);
            see(c, small, sum);
            for (int64_t l = 0; l < std::min<int64_t>(LANES, sequences); ++l) sizes[l * steps + t] = c[l];
        }
        for (int64_t k = 0; k < K * K; ++k) joint[k] = V{};
        for (int64_t t = steps - 1; t >= 0; --t) {
            if (t < steps - 1) product(w, turned, v);
            see(message(t < steps - 1 ? v : nullptr, f + t * K, w), small, sum);
            const V* now = predicted + t * K;
            V m = {};
            for (int64_t j = 0; j < K; ++j) m += f[t * K + j] = now[j] * w[j];
            see(m, mass, sum);
            const V share = 1 / m;
            for (int64_t j = 0; j < K; ++j) f[t * K + j] *= share;
            if (!t) break;
            for (int64_t i = 0; i < K; ++i) {
                const V weight = p[(t - 1) * K + i] * share;
                for (int64_t j = 0; j < K; ++j) joint[i * K + j] += weight * w[j];
            }
        }
        small = sum == sum ? small * mass : sum;  // what is no number at any step is none in the sum
        for (int64_t l = 0; l < std::min<int64_t>(LANES, sequences); ++l) {
            for (int64_t k = 0; k < steps * K; ++k) flow[l * steps * K + k] = f[k][l];
            for (int64_t k = 0; k < K * K; ++k) pairs[l * K * K + k] = joint[k][l] * A[k];
            lowest[l] = small[l];
        }
    }
};

template <typename T, int LANES>
static void counts(const T* start, const T* chain, const T* turned, T* flow, T* sizes, T* pairs, T* lowest,
                   int64_t S, int64_t B, int64_t steps, int64_t K) {
    Chains<T, LANES> chains(steps, K);
    for (int64_t s = 0; s < S; ++s)
        for (int64_t b = 0; b < B; b += LANES) {
            const int64_t n = s * B + b, square = s * K * K;
            chains.run(start + s * K, chain + square, turned + square, flow + n * steps * K, sizes + n * steps,
                       pairs + n * K * K, lowest + n, B - b);
        }
}

#define COUNTS(T, LANES) \\
    extern "C" void counts_of_##T(T* start, T* chain, T* turned, T* flow, T* sizes, T* pairs, T* lowest, \\
                                  int64_t S, int64_t B, int64_t steps, int64_t K) { \\
        counts<T, LANES>(start, chain, turned, flow, sizes, pairs, lowest, S, B, steps, K); \\
    }
COUNTS(float, 16)
COUNTS(double, 8)
"""


def scaled_counts(
    initial: Tensor, transition: Tensor, emission: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """log p(x) (S, B), states (S, B, T, K), transitions (S, B, K, K), and the least c_t or d_t times the least m_t.

    The last is (S, B) as well. None for what is better done in Python.

    Args:
        initial: log pi of S models, (S, K).
        transition: log A (S, K, K).
        emission: (S, B, T, K), of the same type.
    """
    models, batch, steps, states = emission.shape
    small = states <= STATES and steps * states <= NUMBERS
    twin = library(SOURCE) if small and emission.dtype in TYPES else None
    if twin is None:
        return None
    top = emission.amax(-1)
    flow = (emission - top.unsqueeze(-1)).exp_().contiguous()
    probs = transition.exp().contiguous()
    start, turned, sizes = initial.exp().contiguous(), probs.mT.contiguous(), torch.empty_like(top)
    pairs, lowest = flow.new_empty(models, batch, states, states), flow.new_empty(models, batch)
    arrays = (start, probs, turned, flow, sizes, pairs, lowest)
    function = getattr(twin, f"counts_of_{TYPES[emission.dtype]}")
    function(*(ctypes.c_void_p(t.data_ptr()) for t in arrays), *map(ctypes.c_int64, (models, batch, steps, states)))
    return (sizes.log_() + top).sum(-1), flow, pairs, lowest
