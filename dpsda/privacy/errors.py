"""What the privacy core refuses to do."""


class PrivacyError(ValueError):
    """One line: what was refused, where, and what to do. It never quotes a private value."""


class BudgetError(PrivacyError):
    """A spend that would exceed the budget."""


class LedgerError(PrivacyError):
    """A ledger that is damaged, is in use, or belongs to something else."""
