"""Noise from epsilon, epsilon from noise, and what a run has spent.

python -m dpsda.privacy calibrate --epsilon 1 --delta 3.56e-8 --steps 10
python -m dpsda.privacy epsilon --noise 0.82 --delta 5e-7 --steps 439 --sampling_rate 0.02276
python -m dpsda.privacy calibrate --epsilon 5.98 --delta 5e-7 --steps 439 --sampling_rate 0.02276 --histogram_noise 10
python -m dpsda.privacy show RUN          the spend, release by release, and how it splits
python -m dpsda.privacy verify RUN        recompute the certificate from the ledger, check every hash
python -m dpsda.privacy total RUN RUN     several runs on the same data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda.privacy.errors import PrivacyError

if TYPE_CHECKING:
    from dpsda.privacy import accounting


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dpsda.privacy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in (("calibrate", "noise multiplier for an epsilon"), ("epsilon", "epsilon of a noise multiplier")):
        command = commands.add_parser(name, help=about, description=about)
        if name == "calibrate":
            command.add_argument("--epsilon", type=float, required=True)
        else:
            command.add_argument("--noise", "--noise_multiplier", type=float, required=True, dest="noise")
        command.add_argument("--delta", type=float, required=True)
        command.add_argument("--steps", type=int, required=True, help="how many releases are composed")
        command.add_argument(
            "--sampling_rate", type=float, default=1.0, help="Poisson rate of DP-SGD; 1 (default): noisy histograms"
        )
        command.add_argument(
            "--histogram_noise", type=float, help="and one histogram of sensitivity 1 at this noise multiplier"
        )
    for name, about in (("show", "what a run has spent"), ("verify", "check a run's certificate against its ledger")):
        commands.add_parser(name, help=about, description=about).add_argument("run", type=Path, metavar="RUN")
    command = commands.add_parser("total", help="epsilon of several runs on the same data")
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    command.add_argument("--delta", type=float, help="default: the smallest of the runs'")
    args = parser.parse_args(argv)
    try:
        if args.command in ("calibrate", "epsilon"):
            _numbers(args)
        elif args.command == "total":
            _total(args.runs, args.delta)
        else:
            _run(args.command, args.run)
    except (PrivacyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a chain that is whole, and not of ours
        print(f"error: not a ledger or certificate of ours ({type(error).__name__}); restore it", file=sys.stderr)
        return 2
    return 0


def _numbers(args: argparse.Namespace) -> None:
    from dpsda.privacy import accounting

    if args.steps < 1:
        raise PrivacyError(f"--steps has to be at least 1, not {args.steps}")
    if not 0 < args.sampling_rate <= 1:
        raise PrivacyError(f"--sampling_rate has to lie in (0, 1], not at {args.sampling_rate}")
    if args.histogram_noise is not None:
        accounting.check_noise(args.histogram_noise, "--histogram_noise")
    histogram = [accounting.DiscreteGaussian(args.histogram_noise, 1)] if args.histogram_noise else []

    def steps(noise: float) -> list[accounting.Event]:
        if args.sampling_rate == 1:
            return [accounting.DiscreteGaussian(noise, args.steps)]
        return [accounting.SubsampledGaussian(noise, args.sampling_rate, args.steps)]

    def events(noise: float) -> list[accounting.Event]:
        return [*steps(noise), *histogram]

    if args.command == "calibrate":
        noise = accounting.calibrate(events, args.epsilon, args.delta)
    else:
        accounting.check_noise(args.noise)
        noise = args.noise
    print(f"noise multiplier  {noise:.4f}")
    if histogram:
        print(f"  the steps alone      epsilon {_shown(steps(noise), args.delta)}")
        print(f"  the histogram alone  epsilon {_shown(histogram, args.delta)}")
    print(f"epsilon (PLD)     {accounting.round_up(accounting.epsilon(events(noise), args.delta)):.4f}")
    bounds = accounting.cross_check(events(noise), args.delta)
    if bounds:
        print(f"epsilon (PRV)     {accounting.round_up(bounds[1]):.4f}, at least {bounds[0]:.4f}; continuous Gaussian")
    else:
        print("epsilon (PRV)     not applicable: a noise scale below 1.5, or little noise in few steps")


def _shown(events: Sequence[accounting.Event], delta: float) -> str:
    from dpsda.privacy import accounting

    return f"{accounting.round_up(accounting.epsilon(events, delta)):.4f}"


def _run(command: str, run: Path) -> None:
    from dpsda.privacy import certificate
    from dpsda.privacy.ledger import Ledger

    if command == "verify":
        print(certificate.verify(run)["statement"])
        print("verified: the ledger's chain, the epsilon, and the hash of every result and released file")
        return
    ledger = Ledger(run, read_only=True)
    facts = certificate.build(ledger)
    print(facts["statement"])
    print(f"unit: {facts['unit']}, {facts['units']} of them (public); accountant: {facts['accountant']}")
    print("budget:", "none, a noise multiplier was given" if ledger.budget is None else f"epsilon {ledger.budget:g}")
    for row in facts["mechanisms"]:
        print(
            f"  {row['releases']:3d} x {row['stage']} {row['what']}: {row['mechanism']}, "
            f"{certificate.strength(row)}{_more(row)}"
        )
    stages = list(dict.fromkeys(release.stage for release in ledger.reservations()))
    if len(stages) > 1:
        for stage in stages:
            print(f"  {stage} alone: epsilon {_shown(ledger.events(stage), float(ledger.header['delta']))}")
    open_ones = [x.name for x in ledger.reservations() if ledger.result(x.name) is None]
    if open_ones:
        print(f"  charged and not finished: {', '.join(open_ones)}")


def _more(row: dict[str, Any]) -> str:
    """What there is to say beside a mechanism's strength: its sensitivity, and of an interval of training its steps."""
    event, sensitivity = row["event"], row["l2_sensitivity"]
    said = "" if sensitivity is None else f", L2 sensitivity {sensitivity:.4g}"
    if event["kind"] == "subsampled_gaussian":
        said += f", {event['steps']} steps at sampling rate {event['sampling_rate']:.6g}"
    return said


def _total(runs: list[Path], delta: float | None) -> None:
    from dpsda.privacy import accounting, certificate

    spent, at = certificate.total(runs, delta)
    together = f"({accounting.round_up(spent)}, {accounting.shown(at)})"
    print(f"together: {together}-differentially private, if the runs saw the same data")


if __name__ == "__main__":
    sys.exit(main())
