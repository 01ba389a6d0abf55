"""Reviews of answers by a judge or by people, and what a reward model learns from them."""
