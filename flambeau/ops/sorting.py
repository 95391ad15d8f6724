# TAKEN: another helper is writing this file now (since 11:08). Leave it, and go on with your other files.
