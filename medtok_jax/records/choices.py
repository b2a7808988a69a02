"""Name what users choose from for patient records; commands list it before any optional package is needed."""

# Ways to treat codes that the tokenizer does not hold. `nearest` keeps those that nothing stands for.
NEAREST = "nearest"
UNMAPPED = ("keep", "drop", "unk", NEAREST)
TASKS = MORTALITY, READMISSION = ("mortality", "readmission")
# Names of the two rules of what is seen at a discharge, see `samples.make_samples`.
INPUTS = BEDSIDE, CODED = ("bedside", "coded")
