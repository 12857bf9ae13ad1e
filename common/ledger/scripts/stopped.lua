-- stopped: stopping -> gone; the holder of a lease that had been ended has stopped its job, so its place is free
-- KEYS  1 bs:stopping
-- ARGV  1… tokens
-- returns the tokens to publish
for i = 1, #ARGV do stopped(ARGV[i]) end
return tokens
