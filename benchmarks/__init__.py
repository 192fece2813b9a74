"""How fast brainseg is beside what a user would otherwise run: ratios within one run, by alternating repeats.

python -m benchmarks eval --data DATASET
"""
