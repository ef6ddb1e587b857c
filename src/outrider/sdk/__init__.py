"""For authors of NF services; runs inside workers and depends on no other part of Outrider."""
