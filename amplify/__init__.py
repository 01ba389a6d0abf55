"""Amplify runs iterated amplification and its siblings for real, round after round.

People or simulated people answer hard questions with the previous assistant's help, the amplified
answers are distilled into the next assistant, and every round is judged against the best before it.
Read `amplify/round.py` first.
"""
