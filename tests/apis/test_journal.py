import pytest

from apis.api import Prompt, TextAPI
from apis.journal import TOOK, Journal, lines_so_far

ODD = ["two\nlines\r\n", "a\u2028b\u2029c\x85d", "half \ud800 letter", None, "", '"}', "\x00", "ünï\U0001f600"]


class Listed(TextAPI):
    """Answers in the order of a list, the last prompt first; after `most` of them it fails."""

    def __init__(self, answers, most=100):
        self.answers, self.most, self.asked = list(answers), most, []

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        self.seed, answers = seed, {}
        for number in reversed(range(len(prompts))):
            if len(answers) == self.most:
                raise ConnectionError("gone")
            self.asked.append(prompts[number])
            answers[number] = self.answers.pop(0)
            on_answer(number, answers[number])
        return [answers[number] for number in range(len(prompts))]


def prompts(n):
    return [Prompt(f"prompt {number}", "s", (("q", "a"),)) for number in range(n)]


def test_odd_answers_come_back(tmp_path):
    asked, heard = prompts(len(ODD)), []
    first = Journal(Listed(ODD), tmp_path).generate(asked, 3, lambda *pair: heard.append(pair))
    assert first == ODD[::-1]
    assert sorted(heard) == list(enumerate(first))
    again, heard = Listed([]), []
    assert Journal(again, tmp_path).generate(asked, 3, lambda *pair: heard.append(pair)) == first
    assert again.asked == [] and heard == list(enumerate(first))


def test_what_came_before_a_failure_is_kept(tmp_path):
    with pytest.raises(ConnectionError):
        Journal(Listed(["e", "d", "c"], most=2), tmp_path).generate(prompts(5), 3)
    rest, heard = Listed(["c", "b", "a"]), []
    assert Journal(rest, tmp_path).generate(prompts(5), 3, lambda *pair: heard.append(pair)) == list("abcde")
    assert rest.asked == prompts(5)[2::-1]
    assert rest.seed != 3  # the same seed would repeat the draws of the first two
    assert sorted(heard) == list(enumerate("abcde"))


def test_another_process_reads_along(tmp_path):
    """What is there so far, each with the seconds that it took, and the file stays as it is."""
    Journal(Listed("cba"), tmp_path).generate(prompts(3), 3)
    path = tmp_path / "3.jsonl"
    path.write_bytes(path.read_bytes() + b'{"key": "on its w')
    assert [line["answer"] for line in lines_so_far(path)] == list("cba")
    assert all(0 <= line[TOOK] < 5 for line in lines_so_far(path))
    assert path.read_bytes().endswith(b" its w") and lines_so_far(tmp_path / "nothing") == []


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_line_is_asked_for_again(tmp_path, cut):
    Journal(Listed("cba"), tmp_path).generate(prompts(3), 3)
    path = tmp_path / "3.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    rest = Listed("A")
    assert Journal(rest, tmp_path).generate(prompts(3), 3) == ["A", "b", "c"]
    assert rest.asked == prompts(1)
    assert Journal(Listed(""), tmp_path).generate(prompts(3), 3) == ["A", "b", "c"]


def test_the_same_prompt_twice_has_two_answers(tmp_path):
    twice = [Prompt("same"), Prompt("same")]
    assert Journal(Listed("ba"), tmp_path).generate(twice, 3) == ["a", "b"]
    assert Journal(Listed(""), tmp_path).generate(twice, 3) == ["a", "b"]


def test_another_seed_or_prompt_is_another_answer(tmp_path):
    Journal(Listed("ba"), tmp_path).generate(prompts(2), 3)
    assert Journal(Listed("dc"), tmp_path).generate(prompts(2), 4) == ["c", "d"]
    assert {path.name for path in tmp_path.iterdir()} == {"3.jsonl", "4.jsonl"}
    changed = [Prompt("prompt 0", "s", (("q", "b"),)), prompts(2)[1]]
    assert Journal(Listed("e"), tmp_path).generate(changed, 3) == ["e", "b"]
    assert Journal(Listed(""), tmp_path).generate([], 5) == []
    assert not (tmp_path / "5.jsonl").exists()
