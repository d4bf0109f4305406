"""What benchmarks/fuzz.py and tests/data_pipelines/test_fuzz.py are made of."""
