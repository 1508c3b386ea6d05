import threading

from index_server.concurrency import ReadWriteLock


def test_readers_share_and_a_writer_is_alone():
    lock, inside = ReadWriteLock(), threading.Barrier(2, timeout=10)

    def read():
        with lock.read():
            inside.wait()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not inside.broken


def test_a_reader_who_waited_goes_before_a_writer_who_comes_back_at_once():
    lock, turns, seen = ReadWriteLock(), [], []

    def read():
        with lock.read():
            seen.append(len(turns))

    thread = threading.Thread(target=read)
    with lock.write():
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    for turn in range(2000):
        with lock.write():
            turns.append(turn)
    thread.join(10)
    assert seen == [0]


def test_a_writer_who_waits_goes_before_new_readers():
    lock, order = ReadWriteLock(), []

    def write():
        with lock.write():
            order.append("writer")

    def read():
        with lock.read():
            order.append("reader")

    writer, reader = threading.Thread(target=write), threading.Thread(target=read)
    with lock.read():
        writer.start()
        writer.join(0.1)
        reader.start()
        reader.join(0.1)
        assert order == []
    writer.join(10)
    reader.join(10)
    assert order == ["writer", "reader"]
