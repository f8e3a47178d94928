"""Small workspaces at random, with kinks: bounds, empty bins, and rates that differ on both sides."""

import numpy as np


def random_workspace(seed: int) -> dict:
    "One or two channels of one to three bins, a signal, one or two backgrounds, every common kind of modifier."
    rng = np.random.default_rng(seed)
    channels, observations = [], []
    for c in range(rng.integers(1, 3)):
        bins = int(rng.integers(1, 4))
        signal = rng.uniform(0.0, 20.0, bins).round(2)
        samples = [{"name": "signal", "data": signal.tolist(), "modifiers": [modifier("mu", "normfactor")]}]
        total = np.zeros(bins)
        for b in range(rng.integers(1, 3)):
            nominal = rng.uniform(2.0, 60.0, bins).round(2)
            total += nominal
            low, high = rng.uniform(0.5, 1.0), rng.uniform(1.0, 1.6)
            modifiers = [modifier("a", "normsys", {"lo": round(low, 3), "hi": round(high, 3)})]
            if rng.random() < 0.5:
                shift = rng.uniform(-0.4, 0.4, bins) * nominal
                shape = {"lo_data": (nominal - shift).tolist(), "hi_data": (nominal + 0.7 * shift).tolist()}
                modifiers.append(modifier("h", "histosys", shape))
            if rng.random() < 0.5:
                errors = (rng.uniform(0.05, 0.5, bins) * nominal).tolist()
                modifiers.append(modifier(f"stat_{c}_{b}", "shapesys", errors))
            samples.append({"name": f"background{b}", "data": nominal.tolist(), "modifiers": modifiers})
        channels.append({"name": f"c{c}", "samples": samples})
        observed = rng.poisson(total + rng.uniform(0.0, 1.5) * signal)
        observations.append({"name": f"c{c}", "data": observed.astype(float).tolist()})
    measurement = {"name": "m", "config": {"poi": "mu", "parameters": []}}
    return {
        "version": "1.0.0",
        "channels": channels,
        "observations": observations,
        "measurements": [measurement],
    }


def modifier(name: str, kind: str, data=None) -> dict:
    return {"name": name, "type": kind, "data": data}
