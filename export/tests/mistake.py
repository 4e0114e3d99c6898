"""The mistake in the reference's sensitivities, and its size on the golden model.

  python tests/mistake.py        (in export/; prints the tables of docs/export.md)

The reference pairs the tensors of layer i with the gradient of layer L-1-i: its forward hooks append in the order of the
layers, its backward hooks in the reverse.
"""
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import by_hand
import golden


def crossed(model, samples, bits, step):
    """{side: [per layer]} with the reference's pairing."""
    return by_hand.sensitivities(model, samples, bits, step, pair=lambda il: golden.N_LAYER - 1 - il)


def ranks(row):
    """Layers, the most sensitive first."""
    return sorted(range(len(row)), key=lambda il: -row[il])


def main():
    for case in golden.CASES:
        right, wrong = golden.sensitivity("correct", case), golden.sensitivity("reference_output", case)
        for side in "kv":
            print(f"effective length {case}, {side.upper()} at 4 bits")
            for il in range(golden.N_LAYER):
                a, b = right[side][4][il], wrong[side][4][il]
                print(f"  layer {il}: correct {a:.2e}, reference {b:.2e}, ratio {b / a:.3g}")
            print("  most sensitive first: correct", ranks(right[side][4]), "reference", ranks(wrong[side][4]))


if __name__ == "__main__":
    main()
