"""Planning: facts and a target come in, a Plan goes out; no model is read or changed here."""
