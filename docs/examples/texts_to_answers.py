"""Texts to answers: build, search, filter, explain, change, save."""

import tempfile

from muvera import TextIndex

texts = ["Sort the list in place.", "Return a capitalized copy of the string.", "Remove the last item."]
metadata = [{"type": "list"}, {"type": "str"}, {"type": "list"}]
index = TextIndex.build(texts, encoder="static", metadata=metadata)

for hit in index.search("put a list in order", k=2):
    print(f"{hit.score:.2f}  {hit.text}")
print(index.search("make letters upper case", where={"type": {"$ne": "list"}})[0].text)

best = index.search("put a list in order")[0]
for word, matched, similarity in index.explain("put a list in order", best.id).words():
    print(f"{word} -> {matched} {similarity:.2f}")

index.add(["Reverse the list in place."], metadata=[{"type": "list"}])  # in memory until save()
with tempfile.TemporaryDirectory() as folder:
    index.save(f"{folder}/index")
    print(len(TextIndex.load(f"{folder}/index")), "texts")
