"""One outer step after the other (paper, Algorithm 1). Nothing here touches files."""
