"""A decoder trained into an encoder: masked next token prediction, then contrastive learning."""
