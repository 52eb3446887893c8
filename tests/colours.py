"""How colours look: their contrast, and how far apart they are to the eyes that people have."""

import numpy as np


def linear(colour):
    """Red, green and blue as amounts of light, from 0 to 1."""
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    """The contrast ratio of WCAG 2."""
    lights = sorted(float(linear(c) @ (0.2126, 0.7152, 0.0722)) + 0.05 for c in (first, second))
    return lights[1] / lights[0]


# How colours look to whom one kind of cone is missing (Machado, Oliveira & Fernandes 2009).
SEEN_BY = {
    "all": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def distance(first, second, eye):
    """CIELAB ΔE (1976) between two colours as an eye sees them; about 2 is just seen."""

    def lab(colour):
        seen = np.clip(np.array(SEEN_BY[eye]) @ linear(colour), 0, 1)
        t = np.array(XYZ) @ seen / (0.95047, 1, 1.08883)
        x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    return float(np.linalg.norm(lab(first) - lab(second)))
