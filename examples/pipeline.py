"""A pipeline of three processes: lines -> words -> counts.

Each stage receives from the one before and sends to the one after. When there is nothing more, the first sender is
closed, and the end of the stream runs through all of them; the death of a stage would do the same. Run it:

    python pipeline.py [FILE]
"""

import multiprocessing
import sys
from collections import Counter
from pathlib import Path

import ipc_channel as ipc


def split(lines: ipc.Receiver[str], words: ipc.Sender[list[str]]) -> None:
    """Lines in, lists of words out."""
    ipc.close_inherited(keep=[lines, words])  # for the start method fork; otherwise there is nothing to close
    with lines, words:
        for line in lines:
            words.send(line.lower().split())


def count(words: ipc.Receiver[list[str]], counts: ipc.Sender[dict[str, int]]) -> None:
    """Lists of words in; at their end, one message with the counts of all."""
    ipc.close_inherited(keep=[words, counts])
    counter: Counter[str] = Counter()
    with words, counts:
        for some in words:
            counter.update(some)
        counts.send(dict(counter.most_common(5)))


def main(path: Path) -> None:
    """Build the pipeline, feed it, and print what comes out."""
    lines_in, lines_out = ipc.channel(str)
    words_in, words_out = ipc.channel(list[str])
    counts_in, counts_out = ipc.channel(dict[str, int])
    processes = [
        multiprocessing.Process(target=split, args=[lines_out, words_in]),
        multiprocessing.Process(target=count, args=[words_out, counts_in]),
    ]
    with lines_out, words_in, words_out, counts_in:  # these ends are the stages' alone
        for process in processes:
            process.start()
    with counts_out:
        with lines_in, path.open() as file:
            lines_in.send_many(file)
        for counts in counts_out:
            for word, number in counts.items():
                print(f"{number:4} {word}")
    for process in processes:
        process.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__))
