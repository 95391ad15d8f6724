from flambeau.cli import tracebacks


def test_frames_of_flambeau_are_hidden():
    from flambeau.utils.data import BatchSampler

    try:
        BatchSampler([1], 0, False)
    except ValueError as error:
        text = "".join(tracebacks.lines(error))
    assert "test_tracebacks.py" in text and "sampler.py" not in text
    assert text.endswith("(one line inside flambeau hidden; FLAMBEAU_TRACEBACK=full shows all)\n")


def test_a_program_of_our_own_keeps_its_frames():
    namespace = {}
    exec(compile("def f(): raise ValueError('x')", tracebacks.OURS + "doctor.py", "exec"), namespace)
    try:
        namespace["f"]()
    except ValueError as error:
        error.__traceback__ = error.__traceback__.tb_next
        assert "doctor.py" in "".join(tracebacks.lines(error))
