"""Adopts a network in a process of its own, so that the caller need not import TensorFlow.

`python -m model.training.adopt_process` reads an `Adoption` as JSON from standard input.
"""

import sys

from model.engines.cuda import prepare_tensorflow


def main() -> int:
    """Adopt the network that standard input describes; exit code 2 on an AdoptionError.

    The last line of standard output says why there is no int8 variant, if one was asked for.
    """
    prepare_tensorflow()
    from model.training.adopt import Adoption, adopt
    from model.training.adoption import AdoptionError

    try:
        reason = adopt(Adoption.model_validate_json(sys.stdin.buffer.read()))
    except AdoptionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"\n{' '.join((reason or '').split())}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
