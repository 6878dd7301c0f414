"""PMixED: next tokens from an ensemble of models that private texts were split among (Flemings et al. 2024).

options     what can be set
shards      private units split by a keyed hash, and their texts as blocks of tokens
ensemble    one adapter a shard, trained one after the other on one base model
bank        many adapters on one base model, a different one for every row of a batch
projection  a shard's law brought near the public one
planning    the bound of the projection from the budget, and which projection
answers     tokens under a budget of queries
evaluation  perplexity of the ensemble and of what it is compared with
"""
