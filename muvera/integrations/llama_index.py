"""LlamaIndex: a vector store and a postprocessor that rank by late interaction.

Needs the extra "llama-index".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..metadata import OPERATORS, Filter, TextDocument
from ..reranking.chamfer import top_k
from ..texts.encoders.base import TextEncoder
from ..texts.encoders.registry import as_text_encoder
from ..texts.hit import Hit
from ..texts.text_index import TextIndex
from ..utils.checks import needing

with needing("llama_index.core", "llama-index", "muvera.integrations.llama_index"):
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.vector_stores import utils
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )

# LlamaIndex's metadata key of a node's document.
_DOCUMENT = "ref_doc_id"

# LlamaIndex's metadata key of a node as JSON.
_CONTENT = "_node_content"

# Operators with another name than the database's.
_NAMES = {FilterOperator.ANY: "$in", FilterOperator.CONTAINS: "$eq"}


class MuveraVectorStore(BasePydanticVectorStore):
    """A :class:`muvera.TextIndex` as LlamaIndex's vector store.

    The store encodes texts itself, without their metadata, and ignores LlamaIndex's
    embeddings: give a ``VectorStoreIndex`` ``embed_model=MockEmbedding(1)``.  Scores
    are the scores of :meth:`muvera.TextIndex.search`.

    Parameters
    ----------
    index : TextIndex
        May contain texts.  A text that LlamaIndex did not add becomes a TextNode with
        the text's id and metadata; it counts as a document of that id.

    Examples
    --------
    >>> from llama_index.core import MockEmbedding, VectorStoreIndex  # doctest: +SKIP
    >>> texts = TextIndex.build([], "colbert-small")  # doctest: +SKIP
    >>> store = MuveraVectorStore(texts)  # doctest: +SKIP
    >>> index = VectorStoreIndex.from_vector_store(  # doctest: +SKIP
    ...     store, embed_model=MockEmbedding(1)
    ... )
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _index: TextIndex = PrivateAttr()

    def __init__(self, index: TextIndex) -> None:
        super().__init__()
        self._index = index

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes to files.

        Returns
        -------
        str
        """
        return "MuveraVectorStore"

    @property
    def client(self) -> TextIndex:
        """The index."""
        return self._index

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Add nodes, and replace nodes with the same ids.

        Parameters
        ----------
        nodes : sequence of BaseNode
            A repeated id gets its last node.
        **_
            Other arguments of LlamaIndex, which are ignored.

        Returns
        -------
        list of str
            The ids, in the order of the nodes.
        """
        last = {node.node_id: node for node in nodes}
        texts = [node.get_content(MetadataMode.NONE) for node in last.values()]
        self._index.update(texts, ids=list(last), metadata=list(map(_metadata, last.values())))
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete the nodes of a document; an unknown document is ignored.

        Parameters
        ----------
        ref_doc_id : str
            The id of the document.
        **_
            Other arguments of LlamaIndex, which are ignored.
        """
        self._index.delete(self._of_documents([ref_doc_id]), missing="ignore")

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any
    ) -> None:
        """Delete nodes.

        Parameters
        ----------
        node_ids : list of str, optional
            Delete only nodes with one of these ids.
        filters : MetadataFilters, optional
            Delete only nodes that satisfy these filters.  Without ids and filters,
            nothing is deleted.
        **_
            Other arguments of LlamaIndex, which are ignored.
        """
        if node_ids is not None or filters is not None:
            self._index.delete(self._select(node_ids, filters), missing="ignore")

    def clear(self) -> None:
        """Delete all nodes."""
        self._index.delete(self._index.select({}))

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes; all of them without ids and filters.

        Parameters
        ----------
        node_ids : list of str, optional
            Return only nodes with one of these ids.
        filters : MetadataFilters, optional
            Return only nodes that satisfy these filters.

        Returns
        -------
        list of BaseNode
            In the order in which they were added.
        """
        return [
            _node(stored) for stored in self._index.get(self._select(node_ids, filters), missing="ignore")
        ]

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """Return the best nodes of a query.

        Parameters
        ----------
        query : VectorStoreQuery
            With a text.  Its mode is "default", or "hybrid", which uses 1 - `alpha` as
            the weight of shared words.
        **options
            Other arguments of :meth:`muvera.TextIndex.search`, such as ``words=0``.

        Returns
        -------
        VectorStoreQueryResult
            The nodes with their ids and their scores, best first.

        Raises
        ------
        ValueError
            For another mode, or a query without a text.
        """
        if query.query_str is None:
            raise ValueError("A query needs its text: set query_str. The store encodes it as token vectors.")
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID):
            raise ValueError(f"The mode of a query must be default or hybrid, got {query.mode.value}.")
        k = query.hybrid_top_k or query.similarity_top_k
        if query.mode == VectorStoreQueryMode.HYBRID and query.alpha is not None:
            # With 1, similarity would not count.
            options.setdefault("words", min(1 - query.alpha, 0.99))
        # LlamaIndex sends empty lists for "no limit".
        limited = query.node_ids or query.filters is not None
        ids = self._select(query.node_ids or None, query.filters) if limited else None
        if query.doc_ids:
            documents = self._of_documents(query.doc_ids)
            ids = documents if ids is None else [id for id in ids if id in set(documents)]
        hits = self._index.search(query.query_str, k, ids=ids, **options)
        return VectorStoreQueryResult(
            nodes=[_node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[str(hit.id) for hit in hits],
        )

    def persist(self, persist_path: str, fs: object = None) -> None:
        """Write the index to a folder of this machine, and replace an index there.

        Parameters
        ----------
        persist_path : str
            The folder.
        fs : None
            LlamaIndex's file system, which is not supported.

        Raises
        ------
        ValueError
            For another `fs` than None.
        """
        if fs is not None:
            raise ValueError("This store writes to local files only. Omit fs.")
        self._index.save(persist_path, overwrite=True)

    def _of_documents(self, names: Sequence[str]) -> list[int | str]:
        """Return the ids of the documents' nodes, and of texts with these ids."""
        nodes = self._index.select({_DOCUMENT: {"$in": list(names)}})
        texts = self._index.select({_DOCUMENT: {"$exists": False}})
        wanted = set(names)
        return nodes + [id for id in texts if str(id) in wanted]

    def _select(self, ids: list[str] | None, filters: MetadataFilters | None) -> list[int | str]:
        try:
            selected = self._index.select({} if filters is None else _condition(filters))
        except KeyError:  # an operator that the database cannot answer, such as a match of text
            metadata = {stored.id: stored.metadata for stored in self._index}
            holds = utils.build_metadata_filter_fn(lambda id: metadata[id], filters)
            selected = [id for id in metadata if holds(id)]
        if ids is None:
            return selected
        wanted = set(ids)
        return [id for id in selected if str(id) in wanted]


class MuveraNodePostprocessor(BaseNodePostprocessor):
    """Reranks nodes of any retriever by exact Chamfer similarity.

    Parameters
    ----------
    encoder : TextEncoder or str
        See :func:`muvera.load_text_encoder`.  Default: "static", a table of token
        vectors that needs no download.
    top_n : int
        Maximum number of nodes to return.
    """

    top_n: int = 10
    _encoder: TextEncoder = PrivateAttr()

    def __init__(self, encoder: TextEncoder | str = "static", top_n: int = 10) -> None:
        super().__init__(top_n=top_n)
        self._encoder = as_text_encoder(encoder)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex writes to files.

        Returns
        -------
        str
        """
        return "MuveraNodePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("Reranking needs a query. Give query_str or query_bundle.")
        if not nodes:
            return []
        texts = [scored.node.get_content(MetadataMode.NONE) for scored in nodes]
        queries = self._encoder.encode_queries([query_bundle.query_str])
        best = top_k(queries, self._encoder.encode_documents(texts), self.top_n)[0]
        return [NodeWithScore(node=nodes[int(i)].node, score=score) for i, score in best]


def _metadata(node: BaseNode) -> dict[str, Any]:
    """Return the metadata for filters and :func:`_node`.

    Empty values count as absent.
    """
    metadata = utils.node_to_metadata_dict(node, remove_text=True)
    return {key: value for key, value in metadata.items() if value not in ("", [], {}, None)}


def _node(stored: TextDocument | Hit) -> BaseNode:
    metadata = dict(stored.metadata)
    if _CONTENT in metadata:
        return utils.metadata_dict_to_node(metadata, text=stored.text)
    name = str(stored.id)
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=name)}
    return TextNode(id_=name, text=stored.text, metadata=metadata, relationships=source)


def _condition(filters: MetadataFilters | MetadataFilter) -> Filter:
    """Translate LlamaIndex's filters.

    Raise KeyError for an operator without an equivalent.
    """
    if isinstance(filters, MetadataFilters):
        parts = [_condition(part) for part in filters.filters]
        if not parts:
            return {}
        if filters.condition == FilterCondition.NOT:
            return {"$not": {"$or": parts}}
        return {"$or" if filters.condition == FilterCondition.OR else "$and": parts}
    if filters.operator == FilterOperator.IS_EMPTY:
        return {filters.key: {"$exists": False}}
    if filters.operator == FilterOperator.ALL:
        values = filters.value if isinstance(filters.value, list) else [filters.value]
        return {"$and": [{filters.key: value} for value in values]}
    name = _NAMES.get(filters.operator, f"${filters.operator.name.lower()}")
    if name not in OPERATORS:
        raise KeyError(name)
    return {filters.key: {name: filters.value}}
