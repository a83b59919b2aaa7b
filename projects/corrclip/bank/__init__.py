"""The memory bank of CorrCLIP's second version: its files, its search, its config keys."""

from ovseg.projects.corrclip.bank.config import add_bank_keys
from ovseg.projects.corrclip.bank.memory import MemoryBank, build_bank
from ovseg.projects.corrclip.bank.storage import BankError, BankRunError

__all__ = ["BankError", "BankRunError", "MemoryBank", "add_bank_keys", "build_bank"]
