-- What one account sent another, in the order of commit. The index is local to the owner of the
-- inbox, as the messages are: a conversation is one range here for each of its two directions.
CREATE INDEX message_conversation ON message (received_by, sent_by, sent_at, seq);
