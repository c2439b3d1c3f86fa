from datasets import Dataset

import everlora

rows = [{"text": f"{mood} film number {n}", "label": mood} for n in range(20) for mood in ("good", "bad")]
mail = [{"text": f"letter {n} about {desk}", "label": desk} for n in range(20) for desk in ("bills", "bugs")]
tasks = [
    everlora.task(name, train=Dataset.from_list(data[:30]), test=Dataset.from_list(data[30:]))
    for name, data in (("films", rows), ("mail", mail))
]
learner = everlora.Learner("tiny-llama", method="ella", out="runs/own-tasks", train={"max_steps": 4}, resume=True)
for row in learner.follow(tasks).cells:
    print(row)
