"""Run score_sde_jax in a clone of its repository: python main.py --config=configs/digits.py --mode=train."""

from score_sde_jax.cli import start

if __name__ == "__main__":
    start()
