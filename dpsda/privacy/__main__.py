"""Noise from epsilon, epsilon from noise, and what a run has spent.

dpsda calibrate --epsilon 1 --delta 3.56e-8 --steps 10
dpsda epsilon --noise 0.82 --delta 5e-7 --steps 439 --sampling_rate 0.02276
dpsda calibrate --epsilon 5.98 --delta 5e-7 --steps 439 --sampling_rate 0.02276 --histogram_noise 10
dpsda show RUN          the spend, release by release, and how it splits
dpsda verify RUN        recompute the certificate from the ledger, check every hash and the signature
dpsda sign RUN --key ~/.ssh/id_ed25519                 sign the certificate; ssh-keygen does it
dpsda total RUN RUN     several runs on the same data
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dpsda.privacy.errors import PrivacyError

if TYPE_CHECKING:
    from dpsda.privacy import accounting


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are one line, as all that is wrong here."""

    def error(self, message: str) -> NoReturn:
        raise PrivacyError(f"{message} (see --help)")


def main(argv: list[str] | None = None) -> int:
    parser = _Parser(prog="dpsda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    of_run: dict[str, argparse.ArgumentParser] = {}
    for name, about in (
        ("show", "what a run has spent"),
        ("verify", "check a run's certificate against its ledger, and its signature if it has one"),
        ("sign", "sign a run's certificate with an SSH key, after the checks of verify"),
    ):
        of_run[name] = commands.add_parser(name, help=about, description=about)
        of_run[name].add_argument("run", type=Path, metavar="RUN")
    about = "one of these has to have signed it; the format is that of ALLOWED SIGNERS in `man ssh-keygen`"
    of_run["verify"].add_argument("--signers", type=Path, metavar="FILE", help=about)
    about = "a private SSH key (~/.ssh/id_ed25519), or a public one whose private part ssh-agent has"
    of_run["sign"].add_argument("--key", type=Path, metavar="FILE", required=True, help=about)
    about = "the epsilon of several runs on the same data together; of a run that is not finished, of what it has spent"
    command = commands.add_parser("total", help="epsilon of several runs on the same data", description=about)
    command.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    command.add_argument("--delta", type=float, help="default: the smallest of the runs'")
    try:
        args = parser.parse_args(argv)
        if args.command in ("calibrate", "epsilon"):
            _numbers(args)
        elif args.command == "total":
            _total(args.runs, args.delta)
        elif args.command == "sign":
            _sign(args.run, args.key)
        elif args.command == "verify":
            _verify(args.run, args.signers)
        else:
            _show(args.run)
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


def _sign(run: Path, key: Path) -> None:
    from dpsda.privacy import signature

    path = signature.sign(run, key)
    print(f"{path}: signed {signature.check(run)}")


def _verify(run: Path, signers: Path | None) -> None:
    from dpsda.privacy import certificate, signature

    facts = certificate.verify(run)
    who = signature.check(run, signers)
    print(facts["statement"])
    print("verified: the ledger's chain, the epsilon, and the hash of every result and released file")
    if who:
        print(f"signed {who}" + ("" if signers else "; whose key that is, --signers FILE tells"))


def _show(run: Path) -> None:
    from dpsda.privacy import certificate
    from dpsda.privacy.ledger import Ledger

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
    for run in runs:
        if certificate.place(run) is None:
            print(f"{run}: is not finished; what it still spends comes on top")


if __name__ == "__main__":
    sys.exit(main())
