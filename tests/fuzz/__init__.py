"""The project's own fuzzer: seeds damaged at random (`run`) and guided by coverage."""
