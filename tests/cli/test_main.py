from flambeau.version import __version__


def test_usage(command):
    for args, code in (((), 2), (("--help",), 0)):
        done = command(*args)
        assert done.returncode == code
        assert all(f"  {name} " in done.stdout for name in ("run", "demo", "bench", "info"))


def test_version(command):
    assert command("--version").stdout == f"flambeau {__version__}\n"


def test_unknown_command(command):
    done = command("rnu", "x.py")
    assert done.returncode == 2 and "no command 'rnu'" in done.stderr
