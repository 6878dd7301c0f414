"""Attacks on what is released, to see whether the guarantee holds.

options     what can be set
bounds      from what an attacker gets right to a lower bound on epsilon
mechanisms  the mechanisms of the privacy core, alone, on the worst neighbours
canaries    made-up records, each in the private data by the toss of a coin
votes       what the noisy votes of Aug-PE tell of each canary
likelihood  what a generator trained under DP tells of each canary
scores      what synthetic texts tell of who was in the data, and how well a score tells it
"""
